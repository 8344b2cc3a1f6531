//! One node: what it reported, what is wrong, and how to remove it.

use api_types::{Cluster, Node, NodePool};
use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::form::Refusal;
use super::problem::action_by;
use super::shell::{PageContext, Shell};
use super::ui::{Moment, ago};
use super::view_models::NodeRow;
use super::{assets, render, ui};
use crate::app;
use crate::app::deletion::Deletion;
use crate::auth::Action;
use crate::error::Error;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "nodes.html")]
struct Page {
    shell: Shell,
    cluster: Cluster,
    pool: NodePool,
    node: Node,
    row: NodeRow,
    action_by: &'static str,
    seen: Option<Moment>,
    may_remove: bool,
    refusal: Refusal,
}

/// What was typed.
#[derive(Deserialize)]
pub struct Typed {
    #[serde(default)]
    name: String,
}

/// `GET /nodes/{node}`
pub async fn show(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    page(&state, context, &id, Refusal::default()).await
}

/// `POST /nodes/{node}/remove`: starts the removal once the name was typed.
pub async fn remove(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    let node = app::nodes::get(&state, &context.actor, &id).await?;
    let removed = if typed.name.trim() == node.name {
        app::nodes::delete(&state, &context.actor, &id, Deletion::default()).await
    } else {
        let detail = format!("The name does not match. Type {} to remove it.", node.name);
        Err(Error::field("/name", "NAME_MISMATCH", detail))
    };
    match removed {
        Ok(node) => Ok(Redirect::to(&format!("/clusters/{}", node.cluster_id)).into_response()),
        Err(error) => page(&state, context, &id, Refusal::of(error)?).await,
    }
}

async fn page(state: &AppState, context: PageContext, id: &str, refusal: Refusal) -> Result<Response, Error> {
    let node = app::nodes::get(state, &context.actor, id).await?;
    let cluster = app::clusters::get(state, &context.actor, &node.cluster_id).await?;
    let pool = app::pools::get(state, &context.actor, &node.node_pool_id).await?;
    let page = Page {
        row: NodeRow::of(&node, std::slice::from_ref(&pool)),
        action_by: node.problem.as_ref().map_or("", |problem| action_by(&problem.class)),
        seen: node.last_seen_at.map(ago),
        may_remove: context.may(Action::DeleteNode, &cluster.organization_id),
        shell: context.shell,
        cluster,
        pool,
        node,
        refusal,
    };
    render::page_as(page.refusal.status(), &page)
}
