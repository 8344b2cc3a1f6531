//! A node's end. A provider's machine is destroyed; a user's own is told to reset itself and given a while. Then the Kubernetes node is
//! deleted and seen to be gone, and only then the row goes.

use std::time::Duration;

use cloud_providers::{Provider, Removal};
use migrations::{Node, NodeReport, WorkKind};
use tenant_controlplane::status::NodeState;
use time::OffsetDateTime;

use crate::context::{Context, leaving};
use crate::engine::Outcome;
use crate::family::Family;
use crate::host::ObjectKey;
use crate::trouble::Trouble;

const LOOK: Duration = Duration::from_millis(300);

/// Takes a node away.
///
/// # Errors
/// [`Trouble`]; everything done so far stays done.
pub async fn run(ctx: &Context, family: &Family) -> Result<Outcome, Trouble> {
    let node = &family.node;
    if node.state != NodeState::Deleting {
        going(ctx, node, "on its way out").await?;
    }
    let gone = match ctx.provider(family.pool.kind)? {
        Some(provider) => destroyed(node, provider).await?,
        None => has_left(ctx, family),
    };
    if !gone {
        return Ok(Outcome::waiting("the machine to leave", LOOK));
    }
    // From here on nothing that still runs on the machine is let in again.
    ctx.store.nodes().mark_removed(node.id).await?;
    if !leaving(&family.cluster) && !forgotten(ctx, family).await? {
        return Ok(Outcome::waiting("its Kubernetes node to go", LOOK));
    }
    crate::agents::forget(&ctx.store, node.id).await?;
    ctx.store.nodes().purge(node.id).await?;
    ctx.due(WorkKind::NodePool, family.pool.id.uuid()).await?;
    ctx.due(WorkKind::Cluster, family.cluster.id.uuid()).await?;
    Ok(Outcome::Gone)
}

async fn going(ctx: &Context, node: &Node, message: &str) -> Result<(), Trouble> {
    let (state, state_message) = (NodeState::Deleting, message.to_owned());
    let report = NodeReport { state, state_message, problem: None, facts: None, last_seen_at: None };
    Ok(ctx.store.nodes().report(node.id, report).await?)
}

async fn destroyed(node: &Node, provider: &dyn Provider) -> Result<bool, Trouble> {
    Ok(provider.remove(&node.id.to_string()).await? == Removal::Gone)
}

/// Whether the agent said it has reset the machine, cannot be told, or had its time.
fn has_left(ctx: &Context, family: &Family) -> bool {
    let node = &family.node;
    let asked = [node.deletion_requested_at, family.pool.deletion_requested_at, family.cluster.deletion_requested_at];
    let since = asked.into_iter().flatten().min().unwrap_or(node.updated_at);
    let waited = OffsetDateTime::now_utc() - since;
    node.removed || node.machine_fingerprint.is_none() || !node.link_connected || waited > ctx.tuning.farewell
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
