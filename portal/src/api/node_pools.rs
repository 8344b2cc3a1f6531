//! `/node-pools`: named groups of machines.

use super::reply::{Failure, Outcome, accepted, item};
use crate::app::pools;
use crate::error::Error;
use crate::extract::{Body, Call, Change, IfMatch, Wait, WaitQuery};
use crate::paging::{PageQuery, Paging};
use crate::state::AppState;
use api_types::{CreateNodePool, List, NodePool, PatchNodePool};
use axum::Json;
use axum::extract::Path;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, patch, delete))
}

/// List node pools
#[utoipa::path(get, path = "/clusters/{cls}/node-pools", tag = "node pools", operation_id = "list_node_pools",
    params(("cls" = String, Path, description = "`cls_…`"), PageQuery),
    responses((status = 200, body = List<NodePool>, description = "Node pools of the cluster"), Failure))]
async fn list(call: Call, Path(cluster): Path<String>, paging: Paging) -> Result<Json<List<NodePool>>, Error> {
    Ok(Json(pools::list(&call.state, &call.actor, &cluster, &paging).await?))
}

/// Create node pool
///
/// Requires the role editor. Kind `local` only where the instance can create machines.
#[utoipa::path(post, path = "/clusters/{cls}/node-pools", tag = "node pools", operation_id = "create_node_pool",
    params(("cls" = String, Path, description = "`cls_…`"), WaitQuery), request_body = CreateNodePool,
    responses((status = 202, body = NodePool, description = "Accepted"),
        (status = 201, body = NodePool, description = "Created and ready (with `wait`)"), Failure))]
async fn create(
    call: Call,
    Path(cluster): Path<String>,
    wait: Wait,
    Body(input): Body<CreateNodePool>,
) -> Result<Response, Error> {
    let pool = pools::create(&call.state, &call.actor, &cluster, input).await?;
    let id = pool.id.clone();
    accepted(&call, wait, (pool, Outcome::Made), async || pools::get(&call.state, &call.actor, &id).await).await
}

/// Get node pool
#[utoipa::path(get, path = "/node-pools/{np}", tag = "node pools", operation_id = "get_node_pool",
    params(("np" = String, Path, description = "`np_…`")),
    responses((status = 200, body = NodePool, description = "The node pool"), Failure))]
async fn get(call: Call, Path(id): Path<String>) -> Result<Response, Error> {
    Ok(item(&pools::get(&call.state, &call.actor, &id).await?))
}

/// Change node pool
///
/// Requires the role editor. JSON merge patch; only `count` can be changed. `If-Match` is supported.
#[utoipa::path(patch, path = "/node-pools/{np}", tag = "node pools", operation_id = "patch_node_pool",
    params(("np" = String, Path, description = "`np_…`"), WaitQuery,
        ("If-Match" = Option<String>, Header, description = "ETag of the last read; 412 if the resource has changed since")),
    request_body(content((PatchNodePool = "application/merge-patch+json"), (PatchNodePool = "application/json"))),
    responses((status = 202, body = NodePool, description = "Accepted"),
        (status = 200, body = NodePool, description = "Unchanged, or applied (with `wait`)"), Failure))]
async fn patch(
    call: Call,
    Path(id): Path<String>,
    change: Change,
    Body(input): Body<PatchNodePool>,
) -> Result<Response, Error> {
    let before = pools::get(&call.state, &call.actor, &id).await?.generation;
    let pool = pools::patch(&call.state, &call.actor, &id, change.if_match.as_deref(), input).await?;
    if pool.generation == before {
        return Ok(item(&pool));
    }
    let again = async || pools::get(&call.state, &call.actor, &id).await;
    accepted(&call, change.wait, (pool, Outcome::Changed), again).await
}

/// Delete node pool
///
/// Requires the role editor. Deletes its nodes too. `If-Match` is supported.
#[utoipa::path(delete, path = "/node-pools/{np}", tag = "node pools", operation_id = "delete_node_pool",
    params(("np" = String, Path, description = "`np_…`"), WaitQuery,
        ("If-Match" = Option<String>, Header, description = "ETag of the last read; 412 if the resource has changed since")),
    responses((status = 202, body = NodePool, description = "Accepted"),
        (status = 204, description = "Deleted (with `wait`)"), Failure))]
async fn delete(call: Call, Path(id): Path<String>, wait: Wait, if_match: IfMatch) -> Result<Response, Error> {
    let pool = pools::delete(&call.state, &call.actor, &id, if_match.as_deref()).await?;
    accepted(&call, wait, (pool, Outcome::Gone), async || pools::get(&call.state, &call.actor, &id).await).await
}
