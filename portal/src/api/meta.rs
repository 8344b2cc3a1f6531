//! What is the same for everybody: versions and error codes.

use super::reply::Failure;
use crate::app::versions;
use crate::error::catalog;
use crate::extract::Call;
use crate::state::AppState;
use api_types::{ErrorCode, KubernetesVersion, List};
use axum::Json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(kubernetes_versions)).routes(routes!(errors))
}

/// List Kubernetes versions
#[utoipa::path(get, path = "/kubernetes-versions", tag = "catalogue", operation_id = "list_kubernetes_versions",
    responses((status = 200, body = List<KubernetesVersion>, description = "Available versions"), Failure))]
async fn kubernetes_versions(call: Call) -> Json<List<KubernetesVersion>> {
    Json(List { items: versions::list(&call.state), next_cursor: None })
}

/// List error codes
///
/// No credentials required.
#[utoipa::path(get, path = "/errors", tag = "catalogue", operation_id = "list_errors", security(()),
    responses((status = 200, body = List<ErrorCode>, description = "All error codes"), Failure))]
async fn errors() -> Json<List<ErrorCode>> {
    Json(List { items: catalog::all(), next_cursor: None })
}
