//! API tokens of one's own, for the command line and for scripts.

use api_types::{CreateToken, CreatedToken, Token};
use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::form::Refusal;
use super::shell::{PageContext, Shell};
use super::ui::{Moment, Status, ago, day};
use super::{assets, render, ui};
use crate::app;
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "tokens.html")]
struct Page {
    shell: Shell,
    server: String,
    typed: Typed,
    refusal: Refusal,
    /// The secret, right after it was made; never again.
    made: Option<CreatedToken>,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    name: String,
    role: String,
    status: Status,
    used: Option<Moment>,
    ends: String,
}

/// What was typed.
#[derive(Clone, Default, Deserialize)]
pub struct Typed {
    #[serde(default)]
    name: String,
    #[serde(default)]
    role: String,
    /// Lifetime in seconds.
    #[serde(default)]
    lifetime: String,
}

/// `GET /tokens`
pub async fn show(State(state): State<AppState>, context: PageContext) -> Result<Response, Error> {
    let typed = Typed { lifetime: "7776000".into(), role: "editor".into(), ..Typed::default() };
    page(&state, context, (typed, Ok(None))).await
}

/// `POST /tokens`: the page with the secret on it, this once.
pub async fn create(
    State(state): State<AppState>,
    context: PageContext,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    let request = CreateToken {
        name: typed.name.trim().to_owned(),
        organization: context.actor.memberships.first().map(|(organization, _)| organization.id.to_string()),
        role: Some(typed.role.clone()).filter(|role| !role.is_empty()),
        expires_in_seconds: typed.lifetime.parse().ok(),
    };
    let made = match app::tokens::create(&state, &context.actor, request).await {
        Ok(made) => Ok(Some(made)),
        Err(error) => Err(Refusal::of(error)?),
    };
    page(&state, context, (typed, made)).await
}

/// `POST /tokens/{token}/revoke`: it stops working at once.
pub async fn revoke(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    app::tokens::revoke(&state, &context.actor, &id).await?;
    Ok(Redirect::to("/tokens").into_response())
}

type Answer = (Typed, Result<Option<CreatedToken>, Refusal>);

async fn page(state: &AppState, context: PageContext, (typed, answer): Answer) -> Result<Response, Error> {
    let tokens = app::tokens::list(state, &context.actor, &Paging::all()).await?.items;
    let (made, refusal) = match answer {
        Ok(made) => (made, Refusal::default()),
        Err(refusal) => (None, refusal),
    };
    let page = Page {
        shell: context.shell,
        server: state.config().public_url.clone(),
        rows: tokens.into_iter().rev().map(row).collect(),
        typed,
        refusal,
        made,
    };
    render::page_as(page.refusal.status(), &page)
}

fn row(token: Token) -> Row {
    Row {
        status: Status::credential(token.expires_at, false),
        used: token.last_used_at.map(ago),
        ends: token.expires_at.map_or_else(|| "never".to_owned(), day),
        id: token.id,
        name: token.name,
        role: token.role,
    }
}
