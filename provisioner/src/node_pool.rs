//! A pool: as many node rows as wished, and what their states add up to. Machines are the nodes' own business.

use std::time::Duration;

use migrations::{Actor, Cluster, Node, NodePool, PoolKind, PoolReport, WorkKind};
use tenant_controlplane::id::NodePoolId;
use tenant_controlplane::plan;
use tenant_controlplane::status::{NodeState, PoolState, Problem};

use crate::context::{Context, leaving};
use crate::engine::Outcome;
use crate::steps::Steps;
use crate::trouble::{Trouble, present};

/// Nodes wake their pool when they change; this is for what was missed.
const ROUTINE_LOOK: Duration = Duration::from_secs(2);
const OPERATIONS: [&str; 3] = ["node_pool.create", "node_pool.scale", "node_pool.delete"];

/// Makes a pool so.
///
/// # Errors
/// [`Trouble`], which has been put on the pool and its operation already.
pub async fn reconcile(ctx: &Context, id: NodePoolId) -> Result<Outcome, Trouble> {
    let Some(pool) = present(ctx.store.pools().load(id).await)? else { return Ok(Outcome::Gone) };
    let Some(cluster) = present(ctx.store.clusters().load(pool.cluster).await)? else { return Ok(Outcome::Gone) };
    if leaving(&cluster) {
        // The cluster takes its pools along.
        return Ok(Outcome::waiting("the deletion of the cluster", ROUTINE_LOOK));
    }
    let mut steps = open(ctx, &pool).await?;
    let ended = match pool.deletion_requested_at {
        Some(_) => take_down(ctx, &pool, &mut steps).await,
        None => bring_up(ctx, &cluster, &pool, &mut steps).await,
    };
    if let Err(trouble) = &ended {
        tell(ctx, &pool, &mut steps, trouble).await;
    }
    ended
}

async fn open<'a>(ctx: &'a Context, pool: &NodePool) -> Result<Steps<'a>, Trouble> {
    let titles: &'static [_] =
        if pool.deletion_requested_at.is_some() { &plan::POOL_DELETE } else { &plan::POOL_CREATE };
    Ok(Steps::open(&ctx.store, &pool.id.to_string(), &OPERATIONS, titles).await?)
}

async fn bring_up(
    ctx: &Context,
    cluster: &Cluster,
    pool: &NodePool,
    steps: &mut Steps<'_>,
) -> Result<Outcome, Trouble> {
    steps.done("accepted").await?;
    if pool.kind != PoolKind::Byo && cluster.endpoint.is_none() {
        steps.running("machines", "waiting for the cluster's API server").await?;
        report(ctx, pool, &Sum::waiting(pool)).await?;
        return Ok(Outcome::waiting("the cluster", ROUTINE_LOOK));
    }
    ctx.provider(pool.kind)?;
    steps.running("machines", "").await?;
    let nodes = match pool.kind {
        PoolKind::Byo => ctx.store.nodes().of_pool(pool.id).await?,
        _ => scale(ctx, pool).await?,
    };
    let sum = Sum::of(pool, &nodes);
    if sum.made {
        steps.done("machines").await?;
        steps.running("ready", &sum.waits_for).await?;
    } else {
        steps.running("machines", &sum.waits_for).await?;
    }
    report(ctx, pool, &sum).await?;
    if !sum.settled {
        return Ok(Outcome::waiting(sum.message, ROUTINE_LOOK));
    }
    steps.finish().await?;
    Ok(Outcome::Done)
}

/// Makes missing rows and lets surplus ones go; answers the rows as they are then.
async fn scale(ctx: &Context, pool: &NodePool) -> Result<Vec<Node>, Trouble> {
    let mut nodes = ctx.store.nodes().of_pool(pool.id).await?;
    let wished = usize::try_from(pool.count).unwrap_or(usize::MAX);
    let staying = |nodes: &[Node]| nodes.iter().filter(|node| node.deletion_requested_at.is_none()).count();
    while staying(&nodes) < wished {
        let node = ctx.store.nodes().insert_for_pool(pool.id).await?;
        ctx.due(WorkKind::Node, node.id.uuid()).await?;
        nodes.push(node);
    }
    for surplus in surplus(&nodes, staying(&nodes).saturating_sub(wished)) {
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
    let mut staying: Vec<_> = nodes.iter().filter(|node| node.deletion_requested_at.is_none()).collect();
    staying.sort_by_key(|node| (node.state == NodeState::Ready, std::cmp::Reverse(node.created_at)));
    staying.into_iter().take(count).collect()
}

async fn take_down(ctx: &Context, pool: &NodePool, steps: &mut Steps<'_>) -> Result<Outcome, Trouble> {
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
    let sum = Sum { state: PoolState::Deleting, message: message.clone(), problem, ..Sum::waiting(pool) };
    report(ctx, pool, &sum).await?;
    Ok(Outcome::waiting(message, ROUTINE_LOOK))
}

/// What the nodes of a pool add up to.
#[derive(Debug, PartialEq)]
struct Sum {
    state: PoolState,
    message: String,
    /// What the operation waits for.
    waits_for: String,
    /// Whether every machine exists.
    made: bool,
    /// Whether nothing is left to do.
    settled: bool,
    problem: Option<Problem>,
}

impl Sum {
    fn waiting(pool: &NodePool) -> Self {
        let state = if pool.state == PoolState::Pending { PoolState::Pending } else { PoolState::Scaling };
        let (message, waits_for) = ("waiting for the cluster's API server".to_owned(), String::new());
        Self { state, message, waits_for, made: false, settled: false, problem: None }
    }

    fn of(pool: &NodePool, nodes: &[Node]) -> Self {
        let wished = match pool.kind {
            PoolKind::Byo => nodes.iter().filter(|node| node.deletion_requested_at.is_none()).count(),
            _ => usize::try_from(pool.count).unwrap_or(usize::MAX),
        };
        let is = |state| nodes.iter().filter(move |node| node.state == state);
        let ready = is(NodeState::Ready).count();
        let broken = is(NodeState::NotReady).chain(is(NodeState::Lost)).next();
        let going = nodes.iter().filter(|node| node.deletion_requested_at.is_some()).count();
        let unmade = is(NodeState::Pending).chain(is(NodeState::Creating)).count();
        let settled = going == 0 && (pool.kind == PoolKind::Byo || ready >= wished);
        let state = match broken {
            _ if ready >= wished && going == 0 => PoolState::Ready,
            Some(_) => PoolState::Degraded,
            None => PoolState::Scaling,
        };
        let message = match (wished, going) {
            (0, 0) if pool.kind == PoolKind::Byo => "no machine has joined yet".to_owned(),
            (_, 0) => format!("{ready} of {wished} nodes are ready"),
            (_, _) => format!("{ready} of {wished} nodes are ready, {going} being removed"),
        };
        let problem =
            nodes.iter().filter(|node| node.deletion_requested_at.is_none()).find_map(|node| node.problem.clone());
        let leaver = nodes.iter().find(|node| node.deletion_requested_at.is_some());
        let details = leaver.map(|node| format!("{message} ({}: {})", node.name, node.state_message));
        let waits_for =
            problem.as_ref().map(|problem| problem.detail.clone()).or(details).unwrap_or_else(|| message.clone());
        Self { state, message, waits_for, made: unmade == 0, settled, problem }
    }
}

async fn report(ctx: &Context, pool: &NodePool, sum: &Sum) -> Result<(), Trouble> {
    let report = PoolReport {
        observed_generation: if sum.settled { pool.generation } else { pool.observed_generation },
        state: sum.state,
        state_message: sum.message.clone(),
        problem: sum.problem.clone(),
    };
    Ok(ctx.store.pools().report(pool.id, report).await?)
}

/// Puts a failed reconcile on the pool and its operation; what nobody but the user can help ends the operation.
async fn tell(ctx: &Context, pool: &NodePool, steps: &mut Steps<'_>, trouble: &Trouble) {
    let state = match pool.state {
        _ if pool.deletion_requested_at.is_some() => PoolState::Deleting,
        _ if trouble.lasting => PoolState::Error,
        PoolState::Pending => PoolState::Scaling,
        other => other,
    };
    let (problem, state_message) = (Some(trouble.problem.clone()), trouble.problem.detail.clone());
    let report = PoolReport { observed_generation: pool.observed_generation, state, state_message, problem };
    let told = async {
        ctx.store.pools().report(pool.id, report).await?;
        if trouble.lasting {
            steps.give_up(&trouble.problem).await
        } else {
            steps.failed(&trouble.problem.detail).await
        }
    };
    if let Err(error) = told.await {
        tracing::debug!(pool = %pool.id, error = crate::chain(&error), "report a failed reconcile");
    }
}
