//! The operator's page of quotas: every organization, and the limits of one.

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use migrations::QuotaUse;
use serde::Deserialize;

use super::form::Refusal;
use super::shell::{PageContext, Shell};
use super::{assets, render, ui};
use crate::app;
use crate::error::Error;
use crate::state::AppState;
use crate::text::capitalized;

#[derive(Template)]
#[template(path = "quotas_list.html")]
struct ListPage {
    shell: Shell,
    /// Id, name for people, name.
    organizations: Vec<(String, String, String)>,
}

#[derive(Template)]
#[template(path = "quotas.html")]
struct Page {
    shell: Shell,
    id: String,
    name: String,
    typed: Typed,
    refusal: Refusal,
    rows: Vec<Row>,
}

struct Row {
    resource: String,
    title: String,
    used: u64,
    limit: u64,
    status: ui::Status,
}

/// What was typed.
#[derive(Clone, Default, Deserialize)]
pub struct Typed {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    limit: String,
}

/// `GET /operator/quotas`
pub async fn list(State(state): State<AppState>, context: PageContext) -> Result<Response, Error> {
    let all = app::quotas::organizations(&state, &context.actor).await?;
    let named = all.into_iter().map(|row| (row.id.to_string(), row.display_name, row.name.to_string()));
    render::page(&ListPage { shell: context.shell, organizations: named.collect() })
}

/// `GET /operator/quotas/{organization}`
pub async fn show(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    page(&state, context, id, (Typed::default(), Refusal::default())).await
}

/// `POST /operator/quotas/{organization}`: sets one limit.
pub async fn set(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    match app::quotas::set(&state, &context.actor, &id, (&typed.resource, &typed.limit)).await {
        Ok(()) => Ok(Redirect::to(&format!("/operator/quotas/{id}")).into_response()),
        Err(error) => {
            let refusal = Refusal::of(error)?;
            page(&state, context, id, (typed, refusal)).await
        }
    }
}

async fn page(
    state: &AppState,
    context: PageContext,
    id: String,
    (typed, refusal): (Typed, Refusal),
) -> Result<Response, Error> {
    let (organization, quotas) = app::quotas::get(state, &context.actor, &id).await?;
    let (name, rows) = (organization.display_name, quotas.into_iter().map(row).collect());
    let page = Page { shell: context.shell, id, name, typed, refusal, rows };
    render::page_as(page.refusal.status(), &page)
}

fn row(quota: QuotaUse) -> Row {
    let QuotaUse { resource, used, limit } = quota;
    let title = capitalized(resource.title());
    Row { resource: resource.to_string(), title, used, limit, status: ui::Status::quota(used, limit) }
}
