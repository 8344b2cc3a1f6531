//! `/organizations/{org}/audit`: who did what.

use super::reply::Failure;
use crate::app::audit;
use crate::error::Error;
use crate::extract::{AuditQuery, Call};
use crate::state::AppState;
use api_types::{AuditEntry, List};
use axum::Json;
use axum::extract::Path;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// List audit entries
///
/// Newest first. Requires the admin role.
#[utoipa::path(get, path = "/organizations/{org}/audit", tag = "organizations", operation_id = "list_audit_entries",
    params(("org" = String, Path, description = "`org_…` or name"), AuditQuery),
    responses((status = 200, body = List<AuditEntry>, description = "Matching entries"), Failure))]
async fn list(call: Call, Path(id): Path<String>, query: AuditQuery) -> Result<Json<List<AuditEntry>>, Error> {
    let (filter, paging) = query.parse(&format!("{}/organizations/{id}/audit", super::ROOT))?;
    Ok(Json(audit::list(&call.state, &call.actor, &id, (filter, &paging)).await?))
}
