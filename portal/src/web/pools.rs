//! One node pool: make it, change its size, delete it.

use api_types::{Cluster, CreateNodePool, NodePool, PatchNodePool};
use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::form::Refusal;
use super::local::local_hint;
use super::shell::{PageContext, Shell};
use super::view_models::{NodeRow, PoolRow};
use super::{assets, render, ui};
use crate::app;
use crate::auth::Action;
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "pools_new.html")]
struct NewPage {
    shell: Shell,
    cluster: Cluster,
    /// What local machines are, where the person may have them.
    local: Option<&'static str>,
    /// The older versions that its nodes may have.
    versions: Vec<String>,
    typed: Typed,
    refusal: Refusal,
}

#[derive(Template)]
#[template(path = "pools.html")]
struct Page {
    shell: Shell,
    cluster: Cluster,
    pool: NodePool,
    row: PoolRow,
    nodes: Vec<NodeRow>,
    may_change: bool,
    may_delete: bool,
    may_join: bool,
    refusal: Refusal,
}

/// What was typed.
#[derive(Clone, Default, Deserialize)]
pub struct Typed {
    #[serde(default)]
    name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    count: String,
    #[serde(default)]
    version: String,
}

/// `GET /clusters/{cluster}/pools/new`
pub async fn new(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let typed = Typed { count: "1".into(), ..Typed::default() };
    new_page(&state, context, &id, (typed, Refusal::default())).await
}

/// `POST /clusters/{cluster}/pools`
pub async fn create(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    let count = typed.count.trim().parse().ok().filter(|_| typed.kind == "local");
    let version = Some(typed.version.clone()).filter(|version| !version.is_empty());
    let request = CreateNodePool { name: typed.name.trim().to_owned(), kind: typed.kind.clone(), count, version };
    match app::pools::create(&state, &context.actor, &id, request).await {
        Ok(pool) if pool.kind == "byo" => Ok(Redirect::to(&format!("/clusters/{id}/join")).into_response()),
        Ok(_) => Ok(Redirect::to(&format!("/clusters/{id}")).into_response()),
        Err(error) => new_page(&state, context, &id, (typed, Refusal::of(error)?)).await,
    }
}

/// `GET /pools/{pool}`
pub async fn show(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    page(&state, context, &id, Refusal::default()).await
}

/// `POST /pools/{pool}/scale`
pub async fn scale(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    let count = typed.count.trim().parse();
    let request = count.map_err(|_| Error::field("/count", "NOT_A_NUMBER", "Enter a whole number."));
    let changed = match request {
        Ok(count) => app::pools::patch(&state, &context.actor, &id, None, PatchNodePool { count: Some(count) }).await,
        Err(error) => Err(error),
    };
    match changed {
        Ok(pool) => Ok(Redirect::to(&format!("/clusters/{}", pool.cluster_id)).into_response()),
        Err(error) => page(&state, context, &id, Refusal::of(error)?).await,
    }
}

/// `POST /pools/{pool}/delete`: starts the deletion once the name was typed.
pub async fn delete(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    let pool = app::pools::get(&state, &context.actor, &id).await?;
    let deleted = if typed.name.trim() == pool.name {
        app::pools::delete(&state, &context.actor, &id, None).await
    } else {
        let detail = format!("The name does not match. Type {} to delete it.", pool.name);
        Err(Error::field("/name", "NAME_MISMATCH", detail))
    };
    match deleted {
        Ok(pool) => Ok(Redirect::to(&format!("/clusters/{}", pool.cluster_id)).into_response()),
        Err(error) => page(&state, context, &id, Refusal::of(error)?).await,
    }
}

async fn new_page(
    state: &AppState,
    context: PageContext,
    id: &str,
    (typed, refusal): (Typed, Refusal),
) -> Result<Response, Error> {
    let cluster = app::clusters::get(state, &context.actor, id).await?;
    let local = local_hint(state, &context.actor, &cluster.organization_id).await?;
    let kind = if local.is_some() { "local" } else { "byo" };
    let typed = if typed.kind.is_empty() { Typed { kind: kind.into(), ..typed } } else { typed };
    let versions = app::versions::older(state, &cluster.version);
    let status = refusal.status();
    render::page_as(status, &NewPage { shell: context.shell, cluster, local, versions, typed, refusal })
}

async fn page(state: &AppState, context: PageContext, id: &str, refusal: Refusal) -> Result<Response, Error> {
    let pool = app::pools::get(state, &context.actor, id).await?;
    let cluster = app::clusters::get(state, &context.actor, &pool.cluster_id).await?;
    let all = app::nodes::list(state, &context.actor, &cluster.id, &Paging::all()).await?.items;
    let pools = [pool.clone()];
    let mine = all.iter().filter(|node| node.node_pool_id == pool.id);
    let page = Page {
        nodes: mine.map(|node| NodeRow::of(node, &pools)).collect(),
        row: PoolRow::of(&pool, &all),
        may_change: context.may(app::pools::changing(&pool.kind), &cluster.organization_id),
        may_delete: context.may(Action::DeleteNodePool, &cluster.organization_id),
        may_join: context.may(Action::CreateJoinToken, &cluster.organization_id),
        shell: context.shell,
        cluster,
        pool,
        refusal,
    };
    render::page_as(page.refusal.status(), &page)
}
