//! Projects: groups of clusters inside an organization.

use super::organizations::{check_display_name, taken};
use super::{find, view};
use crate::auth::Actor;
use crate::auth::policy::{self, Action, Object};
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;
use api_types::{CreateProject, List, Project};
use migrations::NewProject;
use tenant_controlplane::name::ProjectName;

/// The projects of an organization.
///
/// # Errors
/// [`Error::NotFound`] for an organization out of reach.
pub async fn list(state: &AppState, actor: &Actor, org: &str, paging: &Paging) -> Result<List<Project>, Error> {
    let (organization, _) = find::organization(actor, org)?;
    policy::authorize(actor, Action::ReadProject, organization)?;
    let rows = state.store().identity().projects(organization.id).await?;
    Ok(paging.cut(rows, |row| (row.id.uuid(), row.name.as_str()), view::project))
}

/// Every project within reach, oldest first.
///
/// # Errors
/// Errors of the store.
pub async fn all(state: &AppState, actor: &Actor) -> Result<Vec<Project>, Error> {
    policy::authorize(actor, Action::ReadAccount, Object::Account)?;
    let mut projects = Vec::new();
    for organization in actor.organizations() {
        projects.extend(state.store().identity().projects(organization).await?);
    }
    projects.sort_by_key(|project| project.id);
    Ok(projects.into_iter().map(view::project).collect())
}

/// One project.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(state: &AppState, actor: &Actor, id: &str) -> Result<Project, Error> {
    find::project(state, actor, id, Action::ReadProject).await.map(view::project)
}

/// Makes a project.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Invalid`], [`Error::NameTaken`].
pub async fn create(state: &AppState, actor: &Actor, org: &str, input: CreateProject) -> Result<Project, Error> {
    let organization = find::organization(actor, org)?.0.id;
    policy::authorize(actor, Action::CreateProject, organization)?;
    let name = ProjectName::parse(&input.name).map_err(|error| Error::field("/name", "INVALID_NAME", error))?;
    let display_name = input.display_name.unwrap_or_else(|| name.to_string());
    check_display_name(&display_name)?;
    let new = NewProject { organization, name, display_name, actor: actor.by() };
    let made = state.store().identity().create_project(new).await;
    made.map(view::project).map_err(|error| taken(error, "project", &input.name))
}
