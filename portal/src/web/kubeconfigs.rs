//! Ways into a cluster: issue a kubeconfig as a file, see those issued, revoke one.

use api_types::{Cluster, IssueKubeconfig, IssuedKubeconfig, Kubeconfig};
use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use std::time::Duration;

use super::form::Refusal;
use super::shell::{PageContext, Shell};
use super::ui::{Moment, Status, ago, day};
use super::{assets, render, ui};
use crate::app;
use crate::auth::Action;
use crate::config::Capabilities;
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "kubeconfigs.html")]
struct Page {
    shell: Shell,
    cluster: Cluster,
    ready: bool,
    may_revoke: bool,
    endpoints: Vec<(&'static str, &'static str)>,
    /// Whether the cluster's local machines leave this person `view` only.
    view_only: bool,
    typed: Typed,
    refusal: Refusal,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    name: String,
    role: String,
    status: Status,
    issued: Moment,
    ends: String,
    usable: bool,
    left_behind: Option<String>,
}

/// How long a page waits for a revocation to be seen, before it shows that it is under way.
const REVOCATION: Duration = Duration::from_secs(5);

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
    #[serde(default)]
    endpoint: String,
}

/// `GET /clusters/{cluster}/kubeconfigs`
pub async fn show(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let typed = Typed { role: "admin".into(), lifetime: "2592000".into(), ..Typed::default() };
    page(&state, context, &id, (typed, Refusal::default())).await
}

/// `POST /clusters/{cluster}/kubeconfigs`: the file itself, this once; or the form again.
pub async fn issue(
    State(state): State<AppState>,
    context: PageContext,
    Path(id): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    let request = IssueKubeconfig {
        name: Some(typed.name.trim().to_owned()).filter(|name| !name.is_empty()),
        kind: None,
        role: Some(typed.role.clone()).filter(|role| !role.is_empty()),
        expires_in_seconds: typed.lifetime.parse().ok(),
        endpoint: Some(typed.endpoint.clone()).filter(|endpoint| !endpoint.is_empty()),
    };
    match app::kubeconfigs::issue(&state, &context.actor, &id, request).await {
        Ok(issued) => download(&state, &context, issued).await,
        Err(error) => page(&state, context, &id, (typed, Refusal::of(error)?)).await,
    }
}

/// `POST /clusters/{cluster}/kubeconfigs/{kubeconfig}/revoke`
pub async fn revoke(
    State(state): State<AppState>,
    context: PageContext,
    Path((cluster, id)): Path<(String, String)>,
) -> Result<Response, Error> {
    app::kubeconfigs::revoke(&state, &context.actor, &id, REVOCATION).await?;
    Ok(Redirect::to(&format!("/clusters/{cluster}/kubeconfigs")).into_response())
}

async fn download(state: &AppState, context: &PageContext, issued: IssuedKubeconfig) -> Result<Response, Error> {
    let cluster = app::clusters::get(state, &context.actor, &issued.issued.cluster_id).await?;
    // A cluster's name is a DNS label, so it needs no quoting.
    let file = format!("attachment; filename=\"{}.kubeconfig\"", cluster.name);
    let head = [
        (CONTENT_TYPE, "application/yaml".to_owned()),
        (CONTENT_DISPOSITION, file),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((head, issued.kubeconfig).into_response())
}

async fn page(
    state: &AppState,
    context: PageContext,
    id: &str,
    (typed, refusal): (Typed, Refusal),
) -> Result<Response, Error> {
    let cluster = app::clusters::get(state, &context.actor, id).await?;
    let issued = app::kubeconfigs::list(state, &context.actor, id, &Paging::all()).await?.items;
    let status = refusal.status();
    let view_only = app::local_machines::confines_to_view(state, &context.actor, id).await?;
    let page = Page {
        endpoints: endpoints(state.config().capabilities),
        view_only,
        may_revoke: context.may(Action::RevokeKubeconfig, &cluster.organization_id),
        ready: matches!(cluster.state.as_str(), "running" | "degraded"),
        rows: rows(issued),
        shell: context.shell,
        cluster,
        typed,
        refusal,
    };
    render::page_as(status, &page)
}

/// The ways to a cluster that there are, with a word for each.
fn endpoints(capabilities: Capabilities) -> Vec<(&'static str, &'static str)> {
    let sni = ("sni", "by address: works without DNS");
    let dns = capabilities.dns.then_some(("dns", "by name: for clients without tls-server-name"));
    let port = capabilities.ports.then_some(("port", "by dedicated port: for clients without TLS SNI"));
    [dns, Some(sni), port].into_iter().flatten().collect()
}

/// Those that open the cluster first, then the newest first.
fn rows(issued: Vec<Kubeconfig>) -> Vec<Row> {
    let mut rows: Vec<Row> = issued.into_iter().rev().map(row).collect();
    rows.sort_by_key(|row| !row.usable);
    rows
}

fn row(kubeconfig: Kubeconfig) -> Row {
    let status = Status::kubeconfig(&kubeconfig.state, kubeconfig.expires_at);
    Row {
        usable: matches!(kubeconfig.state.as_str(), "pending" | "active"),
        left_behind: kubeconfig.left_behind,
        status,
        issued: ago(kubeconfig.created_at),
        ends: day(kubeconfig.expires_at),
        id: kubeconfig.id,
        name: kubeconfig.name,
        role: kubeconfig.role,
    }
}
