//! A node's end. Its pods move away, unless its cluster goes as well; a provider's machine is destroyed; a user's own is told to reset
//! itself and given a while. Then the Kubernetes node is deleted and seen to be gone, and only then the row goes.

use std::time::Duration;

use cloud_providers::{Provider, Removal};
use migrations::{Node, NodeReport, WorkKind};
use tenant_controlplane::plan;
use tenant_controlplane::status::NodeState;
use time::OffsetDateTime;

use super::drain::{self, Drain};
use crate::context::{Context, leaving};
use crate::engine::Outcome;
use crate::family::Family;
use crate::host::ObjectKey;
use crate::steps::Steps;
use crate::trouble::Trouble;

const LOOK: Duration = Duration::from_millis(300);

/// Takes a node away.
///
/// # Errors
/// [`Trouble`]; everything done so far stays done.
pub async fn run(ctx: &Context, family: &Family) -> Result<Outcome, Trouble> {
    let node = &family.node;
    let mut steps = Steps::open(&ctx.store, &node.id.to_string(), &["node.delete"], &plan::NODE_DELETE).await?;
    if let Drain::Moving(what) = drained(ctx, family).await? {
        steps.stands("drain", &what).await?;
        going(ctx, node, &what).await?;
        return Ok(Outcome::waiting(what, LOOK));
    }
    steps.done("drain").await?;
    steps.running("machine", "").await?;
    // This also wakes whoever tells the agent to reset the machine.
    going(ctx, node, "its machine is leaving").await?;
    let gone = match ctx.provider(family.pool.kind)? {
        Some(provider) => destroyed(node, provider).await?,
        None => has_left(ctx, family),
    };
    if !gone {
        return Ok(Outcome::waiting("the machine to leave", LOOK));
    }
    // From here on nothing that still runs on the machine is let in again.
    ctx.store.nodes().mark_removed(node.id).await?;
    steps.done("machine").await?;
    steps.running("node", "").await?;
    if !leaving(&family.cluster) && !ctx.visit(forgotten(ctx, family)).await? {
        return Ok(Outcome::waiting("its Kubernetes node to go", LOOK));
    }
    crate::agents::forget(&ctx.store, node.id).await?;
    ctx.store.nodes().purge(node.id).await?;
    ctx.due(WorkKind::NodePool, family.pool.id.uuid()).await?;
    ctx.due(WorkKind::Cluster, family.cluster.id.uuid()).await?;
    Ok(Outcome::Gone)
}

/// Where the whole cluster goes there is nowhere to move to.
async fn drained(ctx: &Context, family: &Family) -> Result<Drain, Trouble> {
    if leaving(&family.cluster) || family.node.removed {
        return Ok(Drain::Over);
    }
    drain::run(ctx, family).await
}

async fn going(ctx: &Context, node: &Node, message: &str) -> Result<(), Trouble> {
    let (state, state_message) = (NodeState::Deleting, message.to_owned());
    let report = NodeReport { state, state_message, problem: None, facts: None, last_seen_at: None };
    Ok(ctx.store.nodes().report(node.id, report).await?)
}

async fn destroyed(node: &Node, provider: &dyn Provider) -> Result<bool, Trouble> {
    Ok(provider.remove(&node.id.to_string()).await? == Removal::Gone)
}

/// Whether a user's own machine has left, as far as anybody can know.
fn has_left(ctx: &Context, family: &Family) -> bool {
    let node = &family.node;
    let asked = [node.deletion_requested_at, family.pool.deletion_requested_at, family.cluster.deletion_requested_at];
    let (asked, now) = (asked.into_iter().flatten().min().unwrap_or(node.updated_at), OffsetDateTime::now_utc());
    // It is told when its pods have moved away.
    let told = node.drain_ends_at.filter(|end| *end <= now && !leaving(&family.cluster));
    is_over(node, told.map_or(asked, |told| told.max(asked)), now, ctx.tuning.farewell)
}

/// Whether the agent said it has reset the machine, never joined, was silent for long before, or had its time. A link that has just
/// ended says nothing: the agent ends it when it begins to reset.
fn is_over(node: &Node, since: OffsetDateTime, now: OffsetDateTime, farewell: Duration) -> bool {
    let silent = !node.link_connected && node.last_seen_at.is_none_or(|seen| now - seen > farewell);
    node.removed || node.machine_fingerprint.is_none() || silent || now - since > farewell
}

/// Whether the Kubernetes node is gone; asks for that first. A cluster that was never reached has none.
async fn forgotten(ctx: &Context, family: &Family) -> Result<bool, Trouble> {
    if family.node.machine_fingerprint.is_none() {
        return Ok(true);
    }
    let Some(api) = ctx.tenants.reach(&family.cluster).await? else {
        return Ok(family.cluster.endpoint.is_none() && family.cluster.observed_generation == 0);
    };
    let key = ObjectKey::global("v1", "Node", family.node.name.as_str());
    api.delete(&key).await.map_err(|error| Trouble::api("cluster", error))?;
    let left = api.get(&key).await.map_err(|error| Trouble::api("cluster", error))?;
    Ok(left.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::decide::tests::node;

    #[test]
    fn a_machine_has_left_when_it_said_so_or_cannot_say_it() {
        let (now, farewell) = (OffsetDateTime::UNIX_EPOCH, Duration::from_secs(20));
        let seconds = time::Duration::seconds;
        let over = |node: &Node, waited| is_over(node, now - seconds(waited), now, farewell);
        let seen = |ago| Node { last_seen_at: Some(now - seconds(ago)), ..node(NodeState::Deleting, true) };
        assert!(!over(&seen(1), 5) && over(&seen(1), 21));
        let resetting = Node { link_connected: false, ..seen(1) };
        assert!(!over(&resetting, 5), "a link that has just ended is no farewell");
        assert!(over(&Node { removed: true, ..resetting.clone() }, 5), "the agent's own word is");
        assert!(over(&resetting, 21), "nobody waits for ever");
        let dead = Node { link_connected: false, ..seen(3600) };
        assert!(over(&dead, 0) && over(&Node { last_seen_at: None, ..dead.clone() }, 0));
        assert!(over(&node(NodeState::Deleting, false), 0), "it never joined");
    }
}
