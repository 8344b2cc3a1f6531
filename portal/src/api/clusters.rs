//! `/clusters`: tenant control planes.

use super::reply::{Failure, Outcome, accepted, item};
use crate::app::clusters;
use crate::app::deletion::Deletion;
use crate::error::Error;
use crate::extract::{Body, Call, Force, ForceQuery, IfMatch, Wait, WaitQuery};
use crate::paging::{PageQuery, Paging};
use crate::state::AppState;
use api_types::{Cluster, CreateCluster, List};
use axum::Json;
use axum::extract::Path;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, delete))
}

/// List clusters
#[utoipa::path(get, path = "/projects/{prj}/clusters", tag = "clusters", operation_id = "list_clusters",
    params(("prj" = String, Path, description = "`prj_…`"), PageQuery),
    responses((status = 200, body = List<Cluster>, description = "Clusters of the project"), Failure))]
async fn list(call: Call, Path(project): Path<String>, paging: Paging) -> Result<Json<List<Cluster>>, Error> {
    Ok(Json(clusters::list(&call.state, &call.actor, &project, &paging).await?))
}

/// Create cluster
///
/// Requires the role editor; node pools of kind `local` require the role admin. With `node_pools` the cluster and its first node pools are
/// created together, or nothing is; each has an operation of its own, and `wait` waits for the cluster's. More node pools can be
/// created later.
#[utoipa::path(post, path = "/projects/{prj}/clusters", tag = "clusters", operation_id = "create_cluster",
    params(("prj" = String, Path, description = "`prj_…`"), WaitQuery), request_body = CreateCluster,
    responses((status = 202, body = Cluster, description = "Accepted"),
        (status = 201, body = Cluster, description = "Created and running (with `wait`)"), Failure))]
async fn create(
    call: Call,
    Path(project): Path<String>,
    wait: Wait,
    Body(input): Body<CreateCluster>,
) -> Result<Response, Error> {
    let cluster = clusters::create(&call.state, &call.actor, &project, input).await?;
    let id = cluster.id.clone();
    let again = async || clusters::get(&call.state, &call.actor, &id).await;
    accepted(&call, wait, (cluster, Outcome::Made), again).await
}

/// Get cluster
#[utoipa::path(get, path = "/clusters/{cls}", tag = "clusters", operation_id = "get_cluster",
    params(("cls" = String, Path, description = "`cls_…`")),
    responses((status = 200, body = Cluster, description = "The cluster"), Failure))]
async fn get(call: Call, Path(id): Path<String>) -> Result<Response, Error> {
    Ok(item(&clusters::get(&call.state, &call.actor, &id).await?))
}

/// Delete cluster
///
/// Requires the role editor. Deletes its nodes, volumes and certificates too. `If-Match` is supported. With `force`, which requires the role
/// admin, it no longer waits for what may never finish; it may be requested during deletion.
#[utoipa::path(delete, path = "/clusters/{cls}", tag = "clusters", operation_id = "delete_cluster",
    params(("cls" = String, Path, description = "`cls_…`"), WaitQuery, ForceQuery,
        ("If-Match" = Option<String>, Header, description = "ETag of the last read; 412 if the resource has changed since")),
    responses((status = 202, body = Cluster, description = "Accepted"),
        (status = 204, description = "Deleted (with `wait`)"), Failure))]
async fn delete(
    call: Call,
    Path(id): Path<String>,
    wait: Wait,
    Force(force): Force,
    if_match: IfMatch,
) -> Result<Response, Error> {
    let cluster =
        clusters::delete(&call.state, &call.actor, &id, Deletion { force, if_match: if_match.as_deref() }).await?;
    let again = async || clusters::get(&call.state, &call.actor, &id).await;
    accepted(&call, wait, (cluster, Outcome::Gone), again).await
}
