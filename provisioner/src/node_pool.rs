//! A pool: as many node rows as desired, and a summary of their states. Machines belong to the nodes' own reconciles.

use std::time::Duration;

use migrations::{Actor, Cluster, Node, NodePool, PoolKind, PoolReport, WorkKind};
use tenant_controlplane::id::NodePoolId;
use tenant_controlplane::plan;
use tenant_controlplane::plan::pool::{Desired, Member, Summary};
use tenant_controlplane::status::NodeState;

use crate::context::{Context, is_deleting};
use crate::engine::Outcome;
use crate::error::{ReconcileError, found_or_none};
use crate::steps::Steps;

/// Nodes wake their pool when they change; this is for what was missed.
const ROUTINE_LOOK: Duration = Duration::from_secs(2);
const OPERATIONS: [&str; 3] = ["node_pool.create", "node_pool.scale", "node_pool.delete"];

/// Makes a pool so.
///
/// # Errors
/// [`ReconcileError`], which has been put on the pool and its operation already.
pub async fn reconcile(ctx: &Context, id: NodePoolId) -> Result<Outcome, ReconcileError> {
    let Some(pool) = found_or_none(ctx.store.pools().load(id).await)? else { return Ok(Outcome::Gone) };
    let Some(cluster) = found_or_none(ctx.store.clusters().load(pool.cluster).await)? else { return Ok(Outcome::Gone) };
    if is_deleting(&cluster) {
        // The cluster takes its pools along.
        return Ok(Outcome::waiting("the deletion of the cluster", ROUTINE_LOOK));
    }
    let mut steps = open(ctx, &pool).await?;
    let ended = match pool.deletion_requested_at {
        Some(_) => take_down(ctx, &pool, &mut steps).await,
        None => bring_up(ctx, &cluster, &pool, &mut steps).await,
    };
    if let Err(error) = &ended {
        report_failure(ctx, &pool, &mut steps, error).await;
    }
    ended
}

async fn open<'a>(ctx: &'a Context, pool: &NodePool) -> Result<Steps<'a>, ReconcileError> {
    let titles: &'static [_] =
        if pool.deletion_requested_at.is_some() { &plan::POOL_DELETE } else { &plan::POOL_CREATE };
    Ok(Steps::open(&ctx.store, &pool.id.to_string(), &OPERATIONS, titles).await?)
}

async fn bring_up(
    ctx: &Context,
    cluster: &Cluster,
    pool: &NodePool,
    steps: &mut Steps<'_>,
) -> Result<Outcome, ReconcileError> {
    steps.done("accepted").await?;
    if pool.kind != PoolKind::Byo && cluster.endpoint.is_none() {
        steps.running("machines", "waiting for the cluster's API server").await?;
        report(ctx, pool, &plan::pool::waiting(pool.state)).await?;
        return Ok(Outcome::waiting("the cluster", ROUTINE_LOOK));
    }
    ctx.provider(pool.kind)?;
    steps.running("machines", "").await?;
    let nodes = match pool.kind {
        PoolKind::Byo => ctx.store.nodes().of_pool(pool.id).await?,
        _ => scale(ctx, pool).await?,
    };
    let summary = plan::pool::summarize(desired(pool), &members(&nodes));
    if summary.created {
        steps.done("machines").await?;
        steps.running("ready", &summary.waiting_for).await?;
    } else {
        steps.running("machines", &summary.waiting_for).await?;
    }
    report(ctx, pool, &summary).await?;
    if !summary.settled {
        return Ok(Outcome::waiting(summary.message, ROUTINE_LOOK));
    }
    steps.finish().await?;
    Ok(Outcome::Done)
}

/// Makes missing rows and lets surplus ones go; answers the rows as they are then.
async fn scale(ctx: &Context, pool: &NodePool) -> Result<Vec<Node>, ReconcileError> {
    let nodes = ctx.store.nodes().of_pool(pool.id).await?;
    let scaling = plan::pool::scale(&members(&nodes), desired_count(pool));
    for _ in 0..scaling.missing {
        let node = ctx.store.nodes().insert_for_pool(pool.id).await?;
        ctx.due(WorkKind::Node, node.id.uuid()).await?;
    }
    for surplus in scaling.surplus.iter().filter_map(|place| nodes.get(*place)) {
        ctx.store.nodes().request_deletion(surplus.organization, surplus.id, Actor::System).await?;
        ctx.due(WorkKind::Node, surplus.id.uuid()).await?;
    }
    for idle in nodes.iter().filter(|node| node.state == NodeState::Pending) {
        ctx.due(WorkKind::Node, idle.id.uuid()).await?;
    }
    Ok(ctx.store.nodes().of_pool(pool.id).await?)
}

fn desired_count(pool: &NodePool) -> usize {
    usize::try_from(pool.count).unwrap_or(usize::MAX)
}

fn desired(pool: &NodePool) -> Desired {
    match pool.kind {
        PoolKind::Byo => Desired::Brought,
        PoolKind::Local => Desired::Count(desired_count(pool)),
    }
}

fn members(nodes: &[Node]) -> Vec<Member<'_>> {
    nodes.iter().map(member).collect()
}

/// What a node's row says, as decisions about its pool need it.
fn member(node: &Node) -> Member<'_> {
    Member {
        name: node.name.as_str(),
        state: node.state,
        message: &node.state_message,
        is_deleting: node.deletion_requested_at.is_some(),
        problem: node.problem.as_ref(),
        created_at: node.created_at,
    }
}

async fn take_down(ctx: &Context, pool: &NodePool, steps: &mut Steps<'_>) -> Result<Outcome, ReconcileError> {
    let nodes = ctx.store.nodes().of_pool(pool.id).await?;
    if nodes.is_empty() {
        steps.finish().await?;
        ctx.store.pools().purge(pool.id).await?;
        return Ok(Outcome::Gone);
    }
    for idle in nodes.iter().filter(|node| node.state != NodeState::Deleting) {
        ctx.due(WorkKind::Node, idle.id.uuid()).await?;
    }
    let summary = plan::pool::deleting(&members(&nodes));
    if pool.kind == PoolKind::Byo {
        steps.running("nodes", &summary.message).await?;
    } else {
        steps.done("nodes").await?;
        steps.running("machines", &summary.message).await?;
    }
    report(ctx, pool, &summary).await?;
    Ok(Outcome::waiting(summary.message, ROUTINE_LOOK))
}

async fn report(ctx: &Context, pool: &NodePool, summary: &Summary) -> Result<(), ReconcileError> {
    let report = PoolReport {
        observed_generation: if summary.settled { pool.generation } else { pool.observed_generation },
        state: summary.state,
        state_message: summary.message.clone(),
        problem: summary.problem.clone(),
    };
    Ok(ctx.store.pools().report(pool.id, report).await?)
}

/// Puts a failed reconcile on the pool and its operation; what nobody but the user can help ends the operation.
async fn report_failure(ctx: &Context, pool: &NodePool, steps: &mut Steps<'_>, error: &ReconcileError) {
    let state = plan::pool::state_after_failure(pool.state, pool.deletion_requested_at.is_some(), error.terminal);
    let (problem, state_message) = (Some(error.problem.clone()), error.problem.detail.clone());
    let report = PoolReport { observed_generation: pool.observed_generation, state, state_message, problem };
    let written = async {
        ctx.store.pools().report(pool.id, report).await?;
        if error.terminal { steps.give_up(&error.problem).await } else { steps.failed(&error.problem.detail).await }
    };
    if let Err(error) = written.await {
        tracing::debug!(pool = %pool.id, error = crate::chain(&error), "report a failed reconcile");
    }
}
