//! `/projects`: groups of clusters.

use super::reply::{Failure, item, made};
use crate::app::projects;
use crate::error::Error;
use crate::extract::{Body, Call};
use crate::paging::{PageQuery, Paging};
use crate::state::AppState;
use api_types::{CreateProject, List, Project};
use axum::Json;
use axum::extract::Path;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get))
}

/// List projects
#[utoipa::path(get, path = "/organizations/{org}/projects", tag = "projects", operation_id = "list_projects",
    params(("org" = String, Path, description = "`org_…` or name"), PageQuery),
    responses((status = 200, body = List<Project>, description = "Projects of the organization"), Failure))]
async fn list(call: Call, Path(org): Path<String>, paging: Paging) -> Result<Json<List<Project>>, Error> {
    Ok(Json(projects::list(&call.state, &call.actor, &org, &paging).await?))
}

/// Create project
///
/// Requires the role admin.
#[utoipa::path(post, path = "/organizations/{org}/projects", tag = "projects", operation_id = "create_project",
    params(("org" = String, Path, description = "`org_…` or name")), request_body = CreateProject,
    responses((status = 201, body = Project, description = "The project"), Failure))]
async fn create(call: Call, Path(org): Path<String>, Body(input): Body<CreateProject>) -> Result<Response, Error> {
    Ok(made(&projects::create(&call.state, &call.actor, &org, input).await?))
}

/// Get project
#[utoipa::path(get, path = "/projects/{prj}", tag = "projects", operation_id = "get_project",
    params(("prj" = String, Path, description = "`prj_…`")),
    responses((status = 200, body = Project, description = "The project"), Failure))]
async fn get(call: Call, Path(id): Path<String>) -> Result<Response, Error> {
    Ok(item(&projects::get(&call.state, &call.actor, &id).await?))
}
