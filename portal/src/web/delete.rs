//! Delete a cluster by typing its name: the page behind the dialog, and the form both send.

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::form::Refusal;
use super::shell::{PageContext, Shell};
use super::{assets, render, ui};
use crate::app;
use crate::app::deletion::Deletion;
use crate::auth::Action;
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "delete.html")]
struct Page {
    shell: Shell,
    id: String,
    name: String,
    nodes: usize,
    may_delete: bool,
    refusal: Refusal,
}

/// What was typed.
#[derive(Deserialize)]
pub struct Typed {
    name: String,
}

/// `GET /clusters/{cluster}/delete`
pub async fn show(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    page(&state, context, &id, Refusal::default()).await
}

/// `POST /clusters/{cluster}/delete`: starts the deletion and goes to the cluster's page, which shows it.
pub async fn submit(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    match delete(&state, &context, &id, typed.name.trim()).await {
        Ok(()) => Ok(Redirect::to(&format!("/clusters/{id}")).into_response()),
        Err(error) => page(&state, context, &id, Refusal::of(error)?).await,
    }
}

async fn delete(state: &AppState, context: &PageContext, id: &str, typed: &str) -> Result<(), Error> {
    let cluster = app::clusters::get(state, &context.actor, id).await?;
    if typed != cluster.name {
        let detail = format!("The name does not match. Type {} to delete it.", cluster.name);
        return Err(Error::field("/name", "NAME_MISMATCH", detail));
    }
    app::clusters::delete(state, &context.actor, id, Deletion::default()).await.map(drop)
}

async fn page(state: &AppState, context: PageContext, id: &str, refusal: Refusal) -> Result<Response, Error> {
    let cluster = app::clusters::get(state, &context.actor, id).await?;
    let nodes = app::nodes::list(state, &context.actor, id, &Paging::all()).await?.items.len();
    let may_delete = context.may(Action::DeleteCluster, &cluster.organization_id);
    let status = refusal.status();
    let page = Page { shell: context.shell, id: cluster.id, name: cluster.name, nodes, may_delete, refusal };
    render::page_as(status, &page)
}
