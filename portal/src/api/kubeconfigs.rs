//! `/kubeconfigs`: files that let kubectl in.

use super::reply::{Failure, shown_once};
use crate::app::kubeconfigs;
use crate::error::Error;
use crate::extract::{Body, Call};
use crate::paging::{PageQuery, Paging};
use crate::state::AppState;
use api_types::{IssueKubeconfig, IssuedKubeconfig, Kubeconfig, List};
use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION};
use axum::response::{IntoResponse, Response};
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const YAML: &str = "application/yaml";
/// How long an answer waits for a revocation to be seen.
const REVOCATION: Duration = Duration::from_secs(10);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, issue)).routes(routes!(revoke))
}

/// List kubeconfigs
#[utoipa::path(get, path = "/clusters/{cls}/kubeconfigs", tag = "kubeconfigs", operation_id = "list_kubeconfigs",
    params(("cls" = String, Path, description = "`cls_…`"), PageQuery),
    responses((status = 200, body = List<Kubeconfig>, description = "Issued kubeconfigs, never the files"), Failure))]
async fn list(call: Call, Path(cluster): Path<String>, paging: Paging) -> Result<Json<List<Kubeconfig>>, Error> {
    Ok(Json(kubeconfigs::list(&call.state, &call.actor, &cluster, &paging).await?))
}

/// Issue kubeconfig
///
/// The file is shown only once, when the cluster has accepted it; with `Accept: application/yaml` it is the whole answer. A
/// cluster has at most 200 that are neither expired nor revoked. Lifetime: 30 days unless
/// `expires_in_seconds` says otherwise, at most 365 days. Roles above `view` take the role editor.
#[utoipa::path(post, path = "/clusters/{cls}/kubeconfigs", tag = "kubeconfigs", operation_id = "issue_kubeconfig",
    params(("cls" = String, Path, description = "`cls_…`")), request_body = IssueKubeconfig,
    responses((status = 201, description = "The kubeconfig with its file",
        content((IssuedKubeconfig = "application/json"), (String = "application/yaml"))), Failure))]
async fn issue(
    call: Call,
    Path(cluster): Path<String>,
    headers: HeaderMap,
    Body(input): Body<IssueKubeconfig>,
) -> Result<Response, Error> {
    let issued = kubeconfigs::issue(&call.state, &call.actor, &cluster, input).await?;
    if wants_yaml(&headers) {
        let location = [(LOCATION, issued.issued.links.this.clone())];
        return Ok((StatusCode::CREATED, location, [(CONTENT_TYPE, YAML)], issued.kubeconfig).into_response());
    }
    Ok(shown_once(&issued, &issued.issued.links.this))
}

/// Revoke kubeconfig
///
/// Requires the role editor. The cluster's API servers stop trusting that file's own CA, which nothing inside the cluster can
/// prevent, and its open connections are closed. The answer is sent when every API server rejects it, or after 10 seconds.
#[utoipa::path(delete, path = "/kubeconfigs/{kcf}", tag = "kubeconfigs", operation_id = "revoke_kubeconfig",
    params(("kcf" = String, Path, description = "`kcf_…`")),
    responses((status = 204, description = "The cluster rejects it"),
        (status = 202, body = Kubeconfig, description = "Revocation in progress: not every API server rejects it yet"), Failure))]
async fn revoke(call: Call, Path(id): Path<String>) -> Result<Response, Error> {
    let revoked = kubeconfigs::revoke(&call.state, &call.actor, &id, REVOCATION).await?;
    if revoked.state == "revoking" && !call.state.store().is_dry_run() {
        return Ok((StatusCode::ACCEPTED, Json(revoked)).into_response());
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Whether YAML is named in `Accept` (and JSON is not named before it).
fn wants_yaml(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let known = kinds.find(|kind| ["application/json", YAML, "application/x-yaml", "text/yaml"].contains(kind));
    known.is_some_and(|kind| kind.ends_with("yaml"))
}
