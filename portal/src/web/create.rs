//! Create a cluster: name, version, and where its nodes come from.

use api_types::{CreateCluster, CreateNodePool, KubernetesVersion, Project};
use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::clusters::{Choice, chosen};
use super::form::Refusal;
use super::local::local_hint;
use super::shell::{PageContext, Shell};
use super::{assets, render, ui};
use crate::app;
use crate::error::Error;
use crate::state::AppState;

/// Machines a first pool may have; as the API allows.
const MOST: u32 = 20;

#[derive(Template)]
#[template(path = "create.html")]
struct Page {
    shell: Shell,
    project: Project,
    versions: Vec<KubernetesVersion>,
    /// What local machines are, where the person may have them.
    local: Option<&'static str>,
    typed: Typed,
    refusal: Refusal,
}

/// What was typed.
#[derive(Clone, Default, Deserialize)]
pub struct Typed {
    project: String,
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    workers: String,
    #[serde(default)]
    count: String,
    #[serde(default)]
    pod_cidr: String,
    #[serde(default)]
    service_cidr: String,
}

/// `GET /clusters/new`
pub async fn show(
    State(state): State<AppState>,
    context: PageContext,
    Query(choice): Query<Choice>,
) -> Result<Response, Error> {
    let (project, _) = chosen(&state, &context.actor, choice.project.as_deref()).await?;
    let local = local_hint(&state, &context.actor, &project.organization_id).await?;
    let workers = if local.is_some() { "local" } else { "byo" };
    let typed = Typed { project: project.id.clone(), workers: workers.into(), count: "1".into(), ..Typed::default() };
    render::page(&page(&state, context, project, (typed, Refusal::default())).await?)
}

/// `POST /clusters`: makes it, and its first pool, and goes to its page; or shows the form again.
pub async fn submit(
    State(state): State<AppState>,
    context: PageContext,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    let (project, _) = chosen(&state, &context.actor, Some(&typed.project)).await?;
    match make(&state, &context, &typed).await {
        Ok(id) => Ok(Redirect::to(&format!("/clusters/{id}")).into_response()),
        Err(error) => {
            let refusal = Refusal::of(error)?;
            let status = refusal.status();
            render::page_as(status, &page(&state, context, project, (typed, refusal)).await?)
        }
    }
}

async fn page(
    state: &AppState,
    context: PageContext,
    project: Project,
    (typed, refusal): (Typed, Refusal),
) -> Result<Page, Error> {
    let local = local_hint(state, &context.actor, &project.organization_id).await?;
    Ok(Page { shell: context.shell, project, versions: app::versions::list(state), local, typed, refusal })
}

async fn make(state: &AppState, context: &PageContext, typed: &Typed) -> Result<String, Error> {
    let input = CreateCluster {
        name: typed.name.trim().to_owned(),
        version: given(&typed.version),
        pod_cidr: given(&typed.pod_cidr),
        service_cidr: given(&typed.service_cidr),
        node_pools: first_pool(typed)?.into_iter().collect(),
        ..CreateCluster::default()
    };
    Ok(app::clusters::create(state, &context.actor, &typed.project, input).await?.id)
}

/// The pool the choice stands for.
fn first_pool(typed: &Typed) -> Result<Option<CreateNodePool>, Error> {
    let pool = |name: &str, kind: &str, count| CreateNodePool {
        name: name.into(),
        kind: kind.into(),
        count,
        ..CreateNodePool::default()
    };
    match typed.workers.as_str() {
        "local" => {
            let count = typed.count.trim().parse().ok().filter(|count| (1..=MOST).contains(count));
            let wrong = || Error::field("/count", "OUT_OF_RANGE", format!("Choose 1 to {MOST} machines."));
            Ok(Some(pool("local", "local", Some(count.ok_or_else(wrong)?))))
        }
        "byo" => Ok(Some(pool("byo", "byo", None))),
        _ => Ok(None),
    }
}

fn given(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
