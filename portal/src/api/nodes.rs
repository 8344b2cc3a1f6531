//! `/nodes`: single machines.

use super::reply::{Failure, Outcome, accepted, item};
use crate::app::deletion::Deletion;
use crate::app::nodes;
use crate::error::Error;
use crate::extract::{Call, Force, ForceQuery, IfMatch, Wait, WaitQuery};
use crate::paging::{PageQuery, Paging};
use crate::state::AppState;
use api_types::{List, Node};
use axum::Json;
use axum::extract::Path;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, delete))
}

/// List nodes
#[utoipa::path(get, path = "/clusters/{cls}/nodes", tag = "nodes", operation_id = "list_nodes",
    params(("cls" = String, Path, description = "`cls_…`"), PageQuery),
    responses((status = 200, body = List<Node>, description = "Nodes of the cluster"), Failure))]
async fn list(call: Call, Path(cluster): Path<String>, paging: Paging) -> Result<Json<List<Node>>, Error> {
    Ok(Json(nodes::list(&call.state, &call.actor, &cluster, &paging).await?))
}

/// Get node
#[utoipa::path(get, path = "/nodes/{nod}", tag = "nodes", operation_id = "get_node",
    params(("nod" = String, Path, description = "`nod_…`")),
    responses((status = 200, body = Node, description = "The node"), Failure))]
async fn get(call: Call, Path(id): Path<String>) -> Result<Response, Error> {
    Ok(item(&nodes::get(&call.state, &call.actor, &id).await?))
}

/// Remove node
///
/// Requires the role editor. The machine is ordered to reset and is rejected from then on. `If-Match` is supported. With `force`, which takes
/// the role admin, neither pods nor machine are waited for; it may be requested during removal.
#[utoipa::path(delete, path = "/nodes/{nod}", tag = "nodes", operation_id = "remove_node",
    params(("nod" = String, Path, description = "`nod_…`"), WaitQuery, ForceQuery,
        ("If-Match" = Option<String>, Header, description = "ETag of the last read; 412 if the resource has changed since")),
    responses((status = 202, body = Node, description = "Accepted"),
        (status = 204, description = "Deleted (with `wait`)"), Failure))]
async fn delete(
    call: Call,
    Path(id): Path<String>,
    wait: Wait,
    Force(force): Force,
    if_match: IfMatch,
) -> Result<Response, Error> {
    let node = nodes::delete(&call.state, &call.actor, &id, Deletion { force, if_match: if_match.as_deref() }).await?;
    accepted(&call, wait, (node, Outcome::Gone), async || nodes::get(&call.state, &call.actor, &id).await).await
}
