//! `/organizations/{org}/quota`: what an organization has, and may have.

use super::reply::Failure;
use crate::app::organizations;
use crate::error::Error;
use crate::extract::Call;
use crate::state::AppState;
use api_types::Quota;
use axum::Json;
use axum::extract::Path;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get))
}

/// Get quota
///
/// Usage and limit of each resource of the organization. The platform operator sets the limits.
#[utoipa::path(get, path = "/organizations/{org}/quota", tag = "organizations", operation_id = "get_quota",
    params(("org" = String, Path, description = "`org_…` or name")),
    responses((status = 200, body = Quota, description = "Used and limit of each resource"), Failure))]
async fn get(call: Call, Path(org): Path<String>) -> Result<Json<Quota>, Error> {
    Ok(Json(organizations::quota(&call.state, &call.actor, &org).await?))
}
