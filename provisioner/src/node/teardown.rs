//! A node's end. Its pods move away, unless its cluster goes as well; a provider's machine is destroyed; a user's own is told to reset
//! itself and given a while. Then the API servers are seen to refuse its certificates and its Kubernetes node to be gone, and only then the
//! row goes.

use std::time::Duration;

use cloud_providers::{Provider, Removal};
use migrations::{Node, NodeReport, WorkKind};
use serde_json::Value;
use tenant_controlplane::plan;
use tenant_controlplane::status::{NodeState, Problem, ProblemCode};
use tenant_controlplane::text::printable;
use time::OffsetDateTime;

use super::drain::{self, Drain};
use super::known;
use crate::clients;
use crate::context::{Context, is_deleting};
use crate::engine::Outcome;
use crate::error::ReconcileError;
use crate::host::{ApiError, ObjectKey};
use crate::node_context::NodeContext;
use crate::steps::Steps;

const LOOK: Duration = Duration::from_millis(300);
/// The same for one that has been on its way out for longer than people watch.
const LATER: Duration = Duration::from_secs(5);
const WATCHED: time::Duration = time::Duration::minutes(1);
/// How long a cluster may refuse to let its Kubernetes node go.
const REFUSED: time::Duration = time::Duration::minutes(2);

/// Takes a node away.
///
/// # Errors
/// [`ReconcileError`]; everything done so far stays done.
pub async fn run(ctx: &Context, node_context: &NodeContext) -> Result<Outcome, ReconcileError> {
    let node = &node_context.node;
    let mut steps = Steps::open(&ctx.store, &node.id.to_string(), &["node.delete"], &plan::NODE_DELETE).await?;
    if let Drain::Draining(what) = drained(ctx, node_context).await? {
        steps.stands("drain", &what).await?;
        report_deleting(ctx, node, &what, None).await?;
        return Ok(Outcome::waiting(what, LOOK));
    }
    steps.done("drain").await?;
    steps.running("machine", "").await?;
    // From here on the agent is told to reset the machine, whenever it asks; this also wakes whoever tells it.
    ctx.store.tombstones().write(node.id).await?;
    // Whoever tells the API servers whom to refuse reads it too.
    ctx.due(WorkKind::Cluster, node_context.cluster.id.uuid()).await?;
    let message = "waiting for its machine to reset";
    report_deleting(
        ctx,
        node,
        message,
        overdue_problem(node_context, message, "Platform operator: check the platform's log for the provider's error."),
    )
    .await?;
    let gone = match ctx.provider(node_context.pool.kind)? {
        Some(provider) => destroyed(node_context, provider).await?,
        None => is_forced(node_context) || has_left(ctx, node_context),
    };
    if !gone {
        return Ok(Outcome::waiting(message, pause(node_context)));
    }
    // From here on nothing that still runs on the machine is let in again.
    ctx.store.nodes().mark_removed(node.id).await?;
    steps.done("machine").await?;
    steps.running("node", "").await?;
    if let Some(wait) = in_kubernetes(ctx, node_context).await? {
        steps.stands("node", &wait).await?;
        report_deleting(ctx, node, &wait, overdue_problem(node_context, &wait, &inspect_hint(node_context))).await?;
        return Ok(Outcome::waiting(wait, pause(node_context)));
    }
    ctx.store.nodes().purge(node.id).await?;
    ctx.due(WorkKind::NodePool, node_context.pool.id.uuid()).await?;
    ctx.due(WorkKind::Cluster, node_context.cluster.id.uuid()).await?;
    Ok(Outcome::Gone)
}

/// Where the whole cluster goes there is nowhere to move to.
async fn drained(ctx: &Context, node_context: &NodeContext) -> Result<Drain, ReconcileError> {
    if is_deleting(&node_context.cluster) || node_context.node.removed || is_forced(node_context) {
        return Ok(Drain::Finished);
    }
    drain::run(ctx, node_context).await
}

async fn report_deleting(
    ctx: &Context,
    node: &Node,
    message: &str,
    problem: Option<Problem>,
) -> Result<(), ReconcileError> {
    let (state, state_message) = (NodeState::Deleting, printable(message));
    let report = NodeReport { state, state_message, problem, facts: None, last_seen_at: None };
    Ok(ctx.store.nodes().report(node.id, report).await?)
}

/// Whether an admin forced the deletion.
const fn is_forced(node_context: &NodeContext) -> bool {
    node_context.node.forced || node_context.cluster.forced
}

/// Since when it is to go.
fn asked(node_context: &NodeContext) -> OffsetDateTime {
    let node = &node_context.node;
    let asked = [
        node.deletion_requested_at,
        node_context.pool.deletion_requested_at,
        node_context.cluster.deletion_requested_at,
    ];
    asked.into_iter().flatten().min().unwrap_or(node.updated_at)
}

/// How long it has been on its way out.
fn waited(node_context: &NodeContext) -> time::Duration {
    OffsetDateTime::now_utc() - asked(node_context)
}

/// Between two looks; one that has been on its way for long takes nobody's place.
fn pause(node_context: &NodeContext) -> Duration {
    if waited(node_context) > WATCHED { LATER } else { LOOK }
}

/// The problem to report when it is overdue, with the command that ends it.
fn overdue_problem(node_context: &NodeContext, detail: &str, remedy: &str) -> Option<Problem> {
    if waited(node_context) <= WATCHED || is_forced(node_context) {
        return None;
    }
    let (name, cluster) = (&node_context.node.name, node_context.cluster.id);
    let remediation = format!("{remedy} To stop waiting: pilothouse node remove {name} --cluster {cluster} --force.");
    Some(Problem::new(ProblemCode::RemovalWaits, detail).with_remediation(remediation))
}

fn inspect_hint(node_context: &NodeContext) -> String {
    format!("Cluster admin: kubectl get node {} -o yaml.", node_context.node.name)
}

/// Whether its provider has seen to it that its machine is gone. Where that is forced, what the provider cannot do is left to people.
async fn destroyed(node_context: &NodeContext, provider: &dyn Provider) -> Result<bool, ReconcileError> {
    match provider.remove(&node_context.node.id.to_string()).await {
        Ok(Removal::Gone) => Ok(true),
        answer if is_forced(node_context) => {
            tracing::warn!(node = %node_context.node.id, ?answer, "forced: its machine may still exist");
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a user's own machine has left, as far as anybody can know.
fn has_left(ctx: &Context, node_context: &NodeContext) -> bool {
    let (node, asked, now) = (&node_context.node, asked(node_context), OffsetDateTime::now_utc());
    // It is told when its pods have moved away.
    let drained_at = node.drain_ends_at.filter(|end| *end <= now && !is_deleting(&node_context.cluster));
    let since = drained_at.map_or(asked, |drained_at| drained_at.max(asked));
    plan::node::has_left(&known(node), since, now, ctx.tuning.reset_timeout)
}

/// What keeps its Kubernetes node, which is asked to go first; none when it is gone. What somebody in the cluster keeps is not waited for
/// longer than [`REFUSED`]: its machine is gone, its name is remembered, and it is deleted as soon as that is let happen. An API server
/// that cannot be reached keeps nothing, and is waited for.
async fn in_kubernetes(ctx: &Context, node_context: &NodeContext) -> Result<Option<String>, ReconcileError> {
    if is_deleting(&node_context.cluster) {
        return Ok(None);
    }
    let (kept, is_refused) = match ctx.with_timeout(forgotten(ctx, node_context)).await {
        Ok(kept) => (kept, true),
        Err(error) if error.cause().is_none() && !is_forced(node_context) => return Err(error),
        Err(error) => (Some(error.problem.detail.clone()), error.cause().is_some_and(refuses)),
    };
    let is_over = is_forced(node_context) || (is_refused && waited(node_context) > REFUSED);
    if let Some(kept) = kept.as_ref().filter(|_| is_over) {
        tracing::warn!(node = %node_context.node.id, kept, "its Node object remains");
    }
    Ok(kept.filter(|_| !is_over))
}

/// Whether somebody in the cluster says no, or lets us wait.
const fn refuses(error: &ApiError) -> bool {
    matches!(error, ApiError::Rejected { .. } | ApiError::Timeout | ApiError::Slow(_) | ApiError::TooLong(_))
}

/// Asks the Kubernetes node to go, and whether its own certificates are refused, which would make it anew; answers what keeps it. A cluster
/// that was never reached has none.
async fn forgotten(ctx: &Context, node_context: &NodeContext) -> Result<Option<String>, ReconcileError> {
    if node_context.node.machine_fingerprint.is_none() {
        return Ok(None);
    }
    let Some(api) = ctx.tenants.reach(&node_context.cluster).await? else {
        let has_none = node_context.cluster.endpoint.is_none() && node_context.cluster.observed_generation == 0;
        let unreachable = || ReconcileError::cluster_api(ApiError::Unreachable("it has no address".into()));
        return if has_none { Ok(None) } else { Err(unreachable()) };
    };
    let is_refused = clients::refuse(ctx, &node_context.cluster, node_context.node.name.as_str()).await?;
    if is_refused {
        ctx.store.tombstones().mark_refused(node_context.node.id).await?;
    }
    let key = ObjectKey::global("v1", "Node", node_context.node.name.as_str());
    api.delete(&key).await.map_err(ReconcileError::cluster_api)?;
    let found = api.get(&key).await.map_err(ReconcileError::cluster_api)?;
    let refusal = (!is_refused).then(|| "waiting for the cluster's API server to reject its certificates".to_owned());
    Ok(found.map_or(refusal, |node| {
        let names = node["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let names = printable(&names.collect::<Vec<_>>().join(", "));
        let finalizers = if names.is_empty() { String::new() } else { format!(", which has finalizers: {names}") };
        Some(format!("waiting for its Node object to be deleted{finalizers}"))
    }))
}
