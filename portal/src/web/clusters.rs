//! The clusters of a project, those that need somebody first.

use api_types::{Cluster, Project};
use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::live::{self, Fragment, Subscriber, Topic};
use super::shell::{PageContext, Shell};
use super::ui::{Moment, Status, ago};
use super::{assets, render, ui};
use crate::app;
use crate::auth::{Action, Actor};
use crate::config::LocalMachines;
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "clusters.html")]
struct Page {
    shell: Shell,
    projects: Vec<Project>,
    project: Project,
    may_create: bool,
    rows: Rows,
}

/// The part of the page that is live.
#[derive(Template)]
#[template(path = "clusters_rows.html")]
struct Rows {
    project: String,
    rows: Vec<Row>,
    may_create: bool,
    local: bool,
}

struct Row {
    id: String,
    name: String,
    status: Status,
    message: String,
    version: String,
    age: Moment,
}

/// Which project is looked at.
#[derive(Deserialize)]
pub struct Choice {
    /// `prj_…`; the first one when missing.
    pub project: Option<String>,
}

/// `GET /clusters`
pub async fn list(
    State(state): State<AppState>,
    context: PageContext,
    Query(choice): Query<Choice>,
) -> Result<Response, Error> {
    let (project, projects) = chosen(&state, &context.actor, choice.project.as_deref()).await?;
    let may_create = context.may(Action::CreateCluster, &project.organization_id);
    let rows = rows(&state, &context.actor, &project).await?;
    render::page(&Page { shell: context.shell, projects, project, may_create, rows })
}

/// `GET /clusters/live`: the table as a stream.
pub async fn live(
    State(state): State<AppState>,
    subscriber: Subscriber,
    Query(choice): Query<Choice>,
) -> Result<Response, Error> {
    let (project, _) = chosen(&state, &subscriber.actor, choice.project.as_deref()).await?;
    let organization = project.organization_id.parse().map_err(Error::internal)?;
    let topic = Topic { page: format!("clusters {}", project.id), organization, cluster: None, gone: String::new() };
    Ok(live::stream(subscriber, topic, move |state, actor| {
        let project = project.clone();
        async move {
            let rows = rows(&state, &actor, &project).await?;
            let busy = rows.rows.iter().any(|row| row.status.group == "working");
            Ok(Fragment { html: rows.render().map_err(Error::internal)?, busy })
        }
    }))
}

async fn rows(state: &AppState, actor: &Actor, project: &Project) -> Result<Rows, Error> {
    let clusters = app::clusters::list(state, actor, &project.id, &Paging::all()).await?.items;
    let mut rows: Vec<Row> = clusters.into_iter().map(row).collect();
    rows.sort_by(|a, b| (a.status.rank(), &a.name).cmp(&(b.status.rank(), &b.name)));
    let may_create = actor.may(Action::CreateCluster, &project.organization_id);
    let local = app::local_machines::offered(state, actor, &project.organization_id).await? != LocalMachines::Off;
    Ok(Rows { project: project.id.clone(), rows, may_create, local })
}

fn row(cluster: Cluster) -> Row {
    let problem = cluster.problem.map(|problem| problem.detail);
    Row {
        status: Status::cluster(&cluster.state),
        message: problem.unwrap_or(cluster.state_message),
        age: ago(cluster.created_at),
        id: cluster.id,
        name: cluster.name,
        version: cluster.version,
    }
}

/// The project asked for, or the first one; and all of them.
///
/// # Errors
/// [`Error::NotFound`] for a project the caller does not see.
pub async fn chosen(state: &AppState, actor: &Actor, wanted: Option<&str>) -> Result<(Project, Vec<Project>), Error> {
    let projects = app::projects::all(state, actor).await?;
    let fits = |project: &&Project| wanted.is_none_or(|wanted| project.id == wanted);
    let project = projects.iter().find(fits).cloned().ok_or(Error::NotFound { what: "project" })?;
    Ok((project, projects))
}
