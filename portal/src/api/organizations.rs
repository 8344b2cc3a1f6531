//! `/organizations`: who owns things.

use super::reply::{Failure, item, made};
use crate::app::organizations;
use crate::error::Error;
use crate::extract::{Body, Call};
use crate::paging::{PageQuery, Paging};
use crate::state::AppState;
use api_types::{CreateOrganization, List, Organization};
use axum::Json;
use axum::extract::Path;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get))
}

/// List organizations
#[utoipa::path(get, path = "/organizations", tag = "organizations", operation_id = "list_organizations",
    params(PageQuery),
    responses((status = 200, body = List<Organization>, description = "The caller's organizations"), Failure))]
async fn list(call: Call, paging: Paging) -> Result<Json<List<Organization>>, Error> {
    Ok(Json(organizations::list(&call.state, &call.actor, &paging).await?))
}

/// Create organization
///
/// The caller becomes its owner.
#[utoipa::path(post, path = "/organizations", tag = "organizations", operation_id = "create_organization",
    request_body = CreateOrganization,
    responses((status = 201, body = Organization, description = "The organization"), Failure))]
async fn create(call: Call, Body(input): Body<CreateOrganization>) -> Result<Response, Error> {
    Ok(made(&organizations::create(&call.state, &call.actor, input).await?))
}

/// Get organization
#[utoipa::path(get, path = "/organizations/{org}", tag = "organizations", operation_id = "get_organization",
    params(("org" = String, Path, description = "`org_…` or name")),
    responses((status = 200, body = Organization, description = "The organization"), Failure))]
async fn get(call: Call, Path(id): Path<String>) -> Result<Response, Error> {
    Ok(item(&organizations::get(&call.state, &call.actor, &id).await?))
}
