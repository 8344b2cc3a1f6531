//! Add a machine: make the one line to paste, and watch machines make contact.

use api_types::{Cluster, CreateJoinToken, CreatedJoinToken, JoinToken, NodePool};
use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use time::OffsetDateTime;

use super::form::Refusal;
use super::live::{self, Fragment, Subscriber, Topic};
use super::shell::{PageContext, Shell};
use super::ui::{Moment, ago};
use super::view_models::NodeRow;
use super::{assets, render, ui};
use crate::app;
use crate::auth::{Action, Actor};
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "join.html")]
struct Page {
    shell: Shell,
    cluster: Cluster,
    gateway: String,
    pools: Vec<NodePool>,
    may_create: bool,
    may_revoke: bool,
    typed: Typed,
    refusal: Refusal,
    /// The line, right after it was made; never again.
    made: Option<CreatedJoinToken>,
    open: Vec<Open>,
    contacts: Contacts,
}

/// Machines of this cluster, newest first.
#[derive(Template)]
#[template(path = "join_contacts.html")]
struct Contacts {
    rows: Vec<NodeRow>,
}

/// A line that still works.
struct Open {
    id: String,
    short: String,
    left: u32,
    ends: Moment,
}

/// What was typed.
#[derive(Clone, Default, Deserialize)]
pub struct Typed {
    #[serde(default)]
    pool: String,
    /// Lifetime in seconds.
    #[serde(default)]
    lifetime: String,
    #[serde(default)]
    uses: String,
}

/// `GET /clusters/{cluster}/join`
pub async fn show(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let typed = Typed { lifetime: "3600".into(), uses: "1".into(), ..Typed::default() };
    page(&state, context, &id, (typed, Ok(None))).await
}

/// `POST /clusters/{cluster}/join`: the page with the line on it, this once.
pub async fn submit(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    let request = CreateJoinToken {
        node_pool: Some(typed.pool.clone()).filter(|pool| !pool.is_empty()),
        expires_in_seconds: typed.lifetime.parse().ok(),
        max_uses: typed.uses.parse().ok(),
    };
    let made = match app::join_tokens::create(&state, &context.actor, &id, request).await {
        Ok(made) => Ok(Some(made)),
        Err(error) => Err(Refusal::of(error)?),
    };
    page(&state, context, &id, (typed, made)).await
}

/// `POST /clusters/{cluster}/join/{token}/revoke`: the line stops working; nodes that joined stay.
pub async fn revoke(
    State(state): State<AppState>,
    context: PageContext,
    Path((cluster, token)): Path<(String, String)>,
) -> Result<Response, Error> {
    app::join_tokens::revoke(&state, &context.actor, &token).await?;
    Ok(Redirect::to(&format!("/clusters/{cluster}/join")).into_response())
}

/// `GET /clusters/{cluster}/join/live`: machines that made contact, as a stream.
pub async fn live(
    State(state): State<AppState>,
    subscriber: Subscriber,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let cluster = app::clusters::get(&state, &subscriber.actor, &id).await?;
    let topic = Topic::of_cluster("join", &cluster)?;
    Ok(live::stream(subscriber, topic, move |state, actor| {
        let id = id.clone();
        async move {
            let contacts = contacts(&state, &actor, &id).await?;
            Ok(Fragment { html: contacts.render().map_err(Error::internal)?, busy: false })
        }
    }))
}

type Answer = (Typed, Result<Option<CreatedJoinToken>, Refusal>);

async fn page(state: &AppState, context: PageContext, id: &str, (typed, answer): Answer) -> Result<Response, Error> {
    let actor = &context.actor;
    let cluster = app::clusters::get(state, actor, id).await?;
    let all = Paging::all();
    let (pools, tokens, contacts) = tokio::try_join!(
        app::pools::list(state, actor, id, &all),
        app::join_tokens::list(state, actor, id, &all),
        contacts(state, actor, id),
    )?;
    let (made, refusal) = match answer {
        Ok(made) => (made, Refusal::default()),
        Err(refusal) => (None, refusal),
    };
    let status = refusal.status();
    let page = Page {
        may_revoke: context.may(Action::RevokeJoinToken, &cluster.organization_id),
        may_create: context.may(Action::CreateJoinToken, &cluster.organization_id),
        gateway: state.config().gateway_address.clone(),
        pools: pools.items.into_iter().filter(|pool| pool.kind == "byo").collect(),
        open: tokens.items.iter().filter_map(open).collect(),
        shell: context.shell,
        cluster,
        typed,
        refusal,
        made,
        contacts,
    };
    render::page_as(status, &page)
}

async fn contacts(state: &AppState, actor: &Actor, id: &str) -> Result<Contacts, Error> {
    let all = Paging::all();
    let pools = app::pools::list(state, actor, id, &all).await?.items;
    let nodes = app::nodes::list(state, actor, id, &all).await?.items;
    Ok(Contacts { rows: nodes.iter().rev().map(|node| NodeRow::of(node, &pools)).collect() })
}

fn open(token: &JoinToken) -> Option<Open> {
    let left = token.max_uses.saturating_sub(token.uses);
    let works = token.revoked_at.is_none() && token.expires_at > OffsetDateTime::now_utc() && left > 0;
    let short = token.id.get(token.id.len().saturating_sub(6)..).unwrap_or_default().to_owned();
    works.then(|| Open { id: token.id.clone(), short, left, ends: ago(token.expires_at) })
}
