//! One node: its machine, its way into the cluster, and its way out.
//!
//! The row is there before the provider is called, and its id is the machine's idempotency token. A join token is made right before a
//! machine is, and bound to that node; a machine that exists is left alone.

mod drain;
mod machine;
mod refusal;
mod teardown;

use std::time::Duration;

use migrations::{Node, NodeInfo, NodeReport, WorkKind};
use tenant_controlplane::id::NodeId;
use tenant_controlplane::plan::node::{self as plan, Known, Observed};
use tenant_controlplane::status::NodeState;
use time::OffsetDateTime;

use crate::context::Context;
use crate::engine::Outcome;
use crate::error::ReconcileError;
use crate::node_context::NodeContext;

/// Between two visits to a node that is on its way; signals come sooner. One that has been so for long is visited less often.
const ROUTINE_LOOK: Duration = Duration::from_secs(1);
const LONGEST_LOOK: Duration = Duration::from_secs(30);
/// The same for a provider's machine whose link is down: it may have to be started again.
const PATIENT_LOOK: Duration = Duration::from_secs(10);
/// And for a user's own, which nobody can hurry: its link wakes whoever waits for it. Anybody with a join token makes any number of them.
const ABSENT_LOOK: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(900));

/// Reconciles a node.
///
/// # Errors
/// [`ReconcileError`], which has been put on the node already.
pub async fn reconcile(ctx: &Context, id: NodeId) -> Result<Outcome, ReconcileError> {
    let Some(node_context) = NodeContext::load(&ctx.store, id).await? else { return Ok(Outcome::Gone) };
    let ended = if node_context.is_deleting() {
        teardown::run(ctx, &node_context).await
    } else {
        bring_up(ctx, &node_context).await
    };
    if let Err(error) = &ended {
        report_failure(ctx, &node_context, error).await;
    }
    ended
}

async fn bring_up(ctx: &Context, node_context: &NodeContext) -> Result<Outcome, ReconcileError> {
    let machine = match ctx.provider(node_context.pool.kind)? {
        Some(provider) => Some(machine::ensure(ctx, node_context, provider).await?),
        None => None,
    };
    ctx.tenants.watch(node_context.cluster.id);
    let node_object = ctx.tenants.node(node_context.cluster.id, node_context.node.name.as_str());
    let known = known(&node_context.node);
    if plan::must_register(&known, node_object.as_ref(), OffsetDateTime::now_utc()) {
        tracing::info!(node = %node_context.node.id, "Node object deleted: ordering kubelet to register");
        ctx.store.nodes().order_registration(node_context.node.id).await?;
    }
    let own = machine.is_none();
    let observed = Observed { machine, node_object };
    let report = refusal::noticed(ctx, node_context, plan::report(&known, &observed), &observed).await;
    let ready = report.state == NodeState::Ready;
    write(ctx, node_context, row(&node_context.node, report)).await?;
    Ok(match node_context.node.machine_fingerprint {
        _ if ready => Outcome::Done,
        Some(_) if !node_context.node.link_connected => {
            let pause =
                if own { requeue_after_absence(&node_context.node, OffsetDateTime::now_utc()) } else { PATIENT_LOOK };
            Outcome::waiting("the machine to reconnect", pause)
        }
        _ => Outcome::waiting("the node to become Ready", pause(&node_context.node)),
    })
}

/// What the row of a node says, as decisions need it.
fn known(node: &Node) -> Known<'_> {
    Known {
        state: node.state,
        message: &node.state_message,
        problem: node.problem.as_ref(),
        joined: node.machine_fingerprint.is_some(),
        link_connected: node.link_connected,
        last_seen_at: node.last_seen_at,
        registration_ordered_at: node.registration.ordered_at,
        removed: node.removed,
        kubelet_version: &node.facts.kubelet_version,
    }
}

/// The report as the row takes it.
fn row(node: &Node, report: plan::Report) -> NodeReport {
    let plan::Report { state, message: state_message, problem, kubelet_version } = report;
    let facts = kubelet_version.map(|kubelet_version| NodeInfo { kubelet_version, ..node.facts.clone() });
    NodeReport { state, state_message, problem, facts, last_seen_at: None }
}

/// When to requeue a machine that is away: a quarter of the time since its last heartbeat.
fn requeue_after_absence(node: &Node, now: OffsetDateTime) -> Duration {
    let silent: Duration = (now - node.last_seen_at.unwrap_or(node.created_at)).try_into().unwrap_or_default();
    (silent / 4).clamp(ABSENT_LOOK.0, ABSENT_LOOK.1)
}

/// An eighth of the time that nothing has changed.
fn pause(node: &Node) -> Duration {
    let still: Duration = (OffsetDateTime::now_utc() - node.updated_at).try_into().unwrap_or_default();
    (still / 8).clamp(ROUTINE_LOOK, LONGEST_LOOK)
}

/// Writes a report, and wakes those who add nodes up when the state changed.
async fn write(ctx: &Context, node_context: &NodeContext, report: NodeReport) -> Result<(), ReconcileError> {
    let node = &node_context.node;
    let changed = report.state != node.state || report.problem != node.problem;
    ctx.store.nodes().report(node.id, report).await?;
    if changed {
        ctx.due(WorkKind::NodePool, node_context.pool.id.uuid()).await?;
        ctx.due(WorkKind::Cluster, node_context.cluster.id.uuid()).await?;
    }
    Ok(())
}

/// Reports a failed reconcile on the node. What cannot be written now is written by the next retry.
async fn report_failure(ctx: &Context, node_context: &NodeContext, error: &ReconcileError) {
    let state = if node_context.is_deleting() { NodeState::Deleting } else { node_context.node.state };
    let (problem, state_message) = (Some(error.problem.clone()), error.problem.detail.clone());
    let report = NodeReport { state, state_message, problem, facts: None, last_seen_at: None };
    if let Err(error) = write(ctx, node_context, report).await {
        tracing::debug!(node = %node_context.node.id, error = crate::chain(&error), "report a failed reconcile");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tenant_controlplane::id::{ClusterId, NodePoolId, OrganizationId};
    use uuid::Uuid;

    use super::*;

    /// A node, well and linked.
    pub fn node(state: NodeState, enrolled: bool) -> Node {
        Node {
            id: NodeId::from_uuid(Uuid::nil()),
            cluster: ClusterId::from_uuid(Uuid::nil()),
            pool: NodePoolId::from_uuid(Uuid::nil()),
            organization: OrganizationId::from_uuid(Uuid::nil()),
            name: "web-1".parse().unwrap(),
            state,
            state_message: "as before".to_owned(),
            pod_cidr: "10.244.0.0/24".parse().unwrap(),
            machine_fingerprint: enrolled.then(|| "f".to_owned()),
            facts: NodeInfo::default(),
            link_connected: true,
            last_seen_at: None,
            deletion_requested_at: None,
            forced: false,
            drain_ends_at: None,
            config: migrations::ConfigVersion::default(),
            registration: migrations::Registration::default(),
            removed: false,
            problem: None,
            operation: None,
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_machine_never_seen_is_looked_at_ever_less_often() {
        let now = OffsetDateTime::now_utc();
        let after = |minutes| {
            let enrolled = now - time::Duration::minutes(minutes);
            let node = Node { link_connected: false, ..node(NodeState::Joining, true) };
            requeue_after_absence(&Node { last_seen_at: Some(enrolled), ..node }, now)
        };
        assert_eq!([0, 1, 8].map(after), [30, 30, 120].map(Duration::from_secs));
        assert_eq!([60, 60 * 24 * 30].map(after), [900, 900].map(Duration::from_secs));
    }
}
