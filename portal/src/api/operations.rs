//! `/operations`: how work gets on.

use super::reply::Failure;
use crate::app::operations;
use crate::error::Error;
use crate::extract::{Call, Target, Wait, WaitQuery};
use crate::paging::{PageQuery, Paging};
use crate::state::AppState;
use api_types::{List, Operation};
use axum::Json;
use axum::extract::Path;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}

/// List operations on a target
///
/// Newest first.
#[utoipa::path(get, path = "/operations", tag = "operations", operation_id = "list_operations",
    params(Target, PageQuery),
    responses((status = 200, body = List<Operation>, description = "Operations on the target"), Failure))]
async fn list(call: Call, target: Target, paging: Paging) -> Result<Json<List<Operation>>, Error> {
    Ok(Json(operations::list(&call.state, &call.actor, &target.target, &paging).await?))
}

/// Get operation
///
/// With `?wait=N` the answer is sent when the operation finishes or after N seconds, whichever is first.
#[utoipa::path(get, path = "/operations/{op}", tag = "operations", operation_id = "get_operation",
    params(("op" = String, Path, description = "`op_…`"), WaitQuery),
    responses((status = 200, body = Operation, description = "The operation with its steps"), Failure))]
async fn get(call: Call, Path(id): Path<String>, wait: Wait) -> Result<Json<Operation>, Error> {
    Ok(Json(operations::get(&call.state, &call.actor, &id, wait.duration).await?))
}
