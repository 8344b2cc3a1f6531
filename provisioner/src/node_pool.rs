//! A pool: as many node rows as desired, and a summary of their states. Machines belong to the nodes' own reconciles.

use std::time::Duration;

use migrations::{Actor, Cluster, Node, NodePool, PoolKind, PoolReport, WorkKind};
use tenant_controlplane::id::NodePoolId;
use tenant_controlplane::plan;
use tenant_controlplane::status::{NodeState, PoolState, Problem};

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
        report(ctx, pool, &PoolSummary::waiting(pool)).await?;
        return Ok(Outcome::waiting("the cluster", ROUTINE_LOOK));
    }
    ctx.provider(pool.kind)?;
    steps.running("machines", "").await?;
    let nodes = match pool.kind {
        PoolKind::Byo => ctx.store.nodes().of_pool(pool.id).await?,
        _ => scale(ctx, pool).await?,
    };
    let summary = PoolSummary::of(pool, &nodes);
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
    let mut nodes = ctx.store.nodes().of_pool(pool.id).await?;
    let desired = usize::try_from(pool.count).unwrap_or(usize::MAX);
    let kept = |nodes: &[Node]| nodes.iter().filter(|node| node.deletion_requested_at.is_none()).count();
    while kept(&nodes) < desired {
        let node = ctx.store.nodes().insert_for_pool(pool.id).await?;
        ctx.due(WorkKind::Node, node.id.uuid()).await?;
        nodes.push(node);
    }
    for surplus in surplus(&nodes, kept(&nodes).saturating_sub(desired)) {
        ctx.store.nodes().request_deletion(surplus.organization, surplus.id, Actor::System).await?;
        ctx.due(WorkKind::Node, surplus.id.uuid()).await?;
    }
    for idle in nodes.iter().filter(|node| node.state == NodeState::Pending) {
        ctx.due(WorkKind::Node, idle.id.uuid()).await?;
    }
    Ok(ctx.store.nodes().of_pool(pool.id).await?)
}

/// Which nodes to let go: those that do no work first, then the newest.
fn surplus(nodes: &[Node], count: usize) -> Vec<&Node> {
    let mut kept: Vec<_> = nodes.iter().filter(|node| node.deletion_requested_at.is_none()).collect();
    kept.sort_by_key(|node| (node.state == NodeState::Ready, std::cmp::Reverse(node.created_at)));
    kept.into_iter().take(count).collect()
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
    let names: Vec<_> = nodes.iter().take(3).map(|node| format!("{} ({})", node.name, node.state_message)).collect();
    let more = if nodes.len() > names.len() { ", …" } else { "" };
    let message = format!("waiting for {} of its nodes: {}{more}", nodes.len(), names.join(", "));
    if pool.kind == PoolKind::Byo {
        steps.running("nodes", &message).await?;
    } else {
        steps.done("nodes").await?;
        steps.running("machines", &message).await?;
    }
    let problem = nodes.iter().find_map(|node| node.problem.clone());
    let summary =
        PoolSummary { state: PoolState::Deleting, message: message.clone(), problem, ..PoolSummary::waiting(pool) };
    report(ctx, pool, &summary).await?;
    Ok(Outcome::waiting(message, ROUTINE_LOOK))
}

/// A summary of the nodes of a pool.
#[derive(Debug, PartialEq)]
struct PoolSummary {
    state: PoolState,
    message: String,
    /// What the operation waits for.
    waiting_for: String,
    /// Whether every machine exists.
    created: bool,
    /// Whether nothing is left to do.
    settled: bool,
    problem: Option<Problem>,
}

impl PoolSummary {
    fn waiting(pool: &NodePool) -> Self {
        let state = if pool.state == PoolState::Pending { PoolState::Pending } else { PoolState::Scaling };
        let (message, waiting_for) = ("waiting for the cluster's API server".to_owned(), String::new());
        Self { state, message, waiting_for, created: false, settled: false, problem: None }
    }

    fn of(pool: &NodePool, nodes: &[Node]) -> Self {
        let desired = match pool.kind {
            PoolKind::Byo => nodes.iter().filter(|node| node.deletion_requested_at.is_none()).count(),
            _ => usize::try_from(pool.count).unwrap_or(usize::MAX),
        };
        let is = |state| nodes.iter().filter(move |node| node.state == state);
        let ready = is(NodeState::Ready).count();
        let broken = is(NodeState::NotReady).chain(is(NodeState::Lost)).next();
        let deleting = nodes.iter().filter(|node| node.deletion_requested_at.is_some()).count();
        let uncreated = is(NodeState::Pending).chain(is(NodeState::Creating)).count();
        let settled = deleting == 0 && (pool.kind == PoolKind::Byo || ready >= desired);
        let state = match broken {
            _ if ready >= desired && deleting == 0 => PoolState::Ready,
            Some(_) => PoolState::Degraded,
            None => PoolState::Scaling,
        };
        let message = match (desired, deleting) {
            (0, 0) if pool.kind == PoolKind::Byo => "no machine has joined yet".to_owned(),
            (_, 0) => format!("{ready} of {desired} nodes are ready"),
            (_, _) => format!("{ready} of {desired} nodes are ready, {deleting} being removed"),
        };
        let problem =
            nodes.iter().filter(|node| node.deletion_requested_at.is_none()).find_map(|node| node.problem.clone());
        let deleting_node = nodes.iter().find(|node| node.deletion_requested_at.is_some());
        let details = deleting_node.map(|node| format!("{message} ({}: {})", node.name, node.state_message));
        let waiting_for =
            problem.as_ref().map(|problem| problem.detail.clone()).or(details).unwrap_or_else(|| message.clone());
        Self { state, message, waiting_for, created: uncreated == 0, settled, problem }
    }
}

async fn report(ctx: &Context, pool: &NodePool, summary: &PoolSummary) -> Result<(), ReconcileError> {
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
    let state = match pool.state {
        _ if pool.deletion_requested_at.is_some() => PoolState::Deleting,
        _ if error.terminal => PoolState::Error,
        PoolState::Pending => PoolState::Scaling,
        other => other,
    };
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
