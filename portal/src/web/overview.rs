//! One cluster: its state, the steps under way, what is wrong and what to do, its nodes and pools.

use api_types::{Cluster, Node, NodePool, Operation, Problem};
use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;

use super::live::{self, Fragment, Subscriber, Topic};
use super::local::local_words;
use super::problem::action_by;
use super::shell::{PageContext, Shell};
use super::ui::{Moment, Status, ago};
use super::view_models::{Check, NodeRow, PoolRow, Progress};
use super::{assets, render, ui};
use crate::app;
use crate::auth::{Action, Actor};
use crate::config::LocalMachines;
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "overview.html")]
struct Page {
    shell: Shell,
    id: String,
    name: String,
    may_delete: bool,
    deleting: bool,
    live: Live,
}

/// The part of the page that is live: all of it but the frame and the danger zone.
#[derive(Template)]
#[template(path = "overview_live.html")]
struct Live {
    id: String,
    name: String,
    status: Status,
    message: String,
    version: String,
    endpoint: Option<String>,
    pod_cidr: String,
    service_cidr: String,
    age: Moment,
    problem: Option<Problem>,
    action_by: &'static str,
    progress: Option<Progress>,
    checks: Vec<Check>,
    nodes: Vec<NodeRow>,
    ready_nodes: usize,
    pools: Vec<PoolRow>,
    /// What its local machines mean for whoever works in it, if it has some.
    local: Option<&'static str>,
    may_add_machine: bool,
    may_add_pool: bool,
    may_delete: bool,
    ready: bool,
    deleting: bool,
}

#[derive(Template)]
#[template(path = "overview_gone.html")]
struct Gone<'a> {
    name: &'a str,
}

/// Everything the page shows, read at one moment.
struct OverviewSummary {
    local: LocalMachines,
    cluster: Cluster,
    operation: Option<Operation>,
    pools: Vec<NodePool>,
    nodes: Vec<Node>,
}

/// `GET /clusters/{cluster}`
pub async fn show(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let summary = gather(&state, &context.actor, &id).await?;
    let live = Live::of(summary, &context.actor);
    render::page(&Page {
        shell: context.shell,
        id: live.id.clone(),
        name: live.name.clone(),
        may_delete: live.may_delete,
        deleting: live.deleting,
        live,
    })
}

/// `GET /clusters/{cluster}/live`: the same as a stream.
pub async fn live(
    State(state): State<AppState>,
    subscriber: Subscriber,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let cluster = app::clusters::get(&state, &subscriber.actor, &id).await?;
    let gone = Gone { name: &cluster.name }.render().map_err(Error::internal)?;
    let topic = Topic { gone, ..Topic::of_cluster("overview", &cluster)? };
    Ok(live::stream(subscriber, topic, move |state, actor| {
        let id = id.clone();
        async move {
            let live = Live::of(gather(&state, &actor, &id).await?, &actor);
            let busy = live.progress.as_ref().is_some_and(|progress| progress.running);
            Ok(Fragment { html: live.render().map_err(Error::internal)?, busy })
        }
    }))
}

async fn gather(state: &AppState, actor: &Actor, id: &str) -> Result<OverviewSummary, Error> {
    let cluster = app::clusters::get(state, actor, id).await?;
    let all = Paging::all();
    let newest = Paging { limit: 1, ..Paging::default() };
    let (operations, pools, nodes) = tokio::try_join!(
        app::operations::list(state, actor, id, &newest),
        app::pools::list(state, actor, id, &all),
        app::nodes::list(state, actor, id, &all),
    )?;
    let local = state.config().capabilities.local;
    Ok(OverviewSummary {
        local,
        cluster,
        operation: operations.items.into_iter().next(),
        pools: pools.items,
        nodes: nodes.items,
    })
}

impl Live {
    fn of(summary: OverviewSummary, actor: &Actor) -> Self {
        let OverviewSummary { local, cluster, operation, pools, nodes } = summary;
        let failed = operation.as_ref().and_then(|operation| operation.error.clone());
        let problem = cluster.problem.or(failed);
        let at_work = operation.as_ref().is_some_and(|operation| !operation.is_finished());
        Live {
            status: Status::cluster(&cluster.state),
            action_by: problem.as_ref().map_or("", |problem| action_by(&problem.class)),
            progress: operation.as_ref().map(Progress::of),
            checks: cluster.conditions.iter().map(|condition| Check::of(condition, at_work)).collect(),
            ready_nodes: nodes.iter().filter(|node| node.state == "ready").count(),
            nodes: nodes.iter().map(|node| NodeRow::of(node, &pools)).collect(),
            local: local_words(local).filter(|_| pools.iter().any(|pool| pool.kind == "local")),
            pools: pools.iter().map(|pool| PoolRow::of(pool, &nodes)).collect(),
            may_add_machine: actor.may(Action::CreateJoinToken, &cluster.organization_id),
            may_add_pool: actor.may(Action::CreateNodePool, &cluster.organization_id),
            may_delete: actor.may(Action::DeleteCluster, &cluster.organization_id),
            ready: matches!(cluster.state.as_str(), "running" | "degraded"),
            deleting: cluster.deletion_requested_at.is_some(),
            age: ago(cluster.created_at),
            id: cluster.id,
            name: cluster.name,
            message: cluster.state_message,
            version: cluster.version,
            endpoint: cluster.endpoint,
            pod_cidr: cluster.pod_cidr,
            service_cidr: cluster.service_cidr,
            problem,
        }
    }
}
