//! `/join-tokens`: what a machine shows once to become a node.

use super::reply::{Failure, shown_once};
use crate::app::join_tokens;
use crate::error::Error;
use crate::extract::{Body, Call};
use crate::paging::{PageQuery, Paging};
use crate::state::AppState;
use api_types::{CreateJoinToken, CreatedJoinToken, JoinToken, List};
use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(revoke))
}

/// List join tokens
#[utoipa::path(get, path = "/clusters/{cls}/join-tokens", tag = "join tokens", operation_id = "list_join_tokens",
    params(("cls" = String, Path, description = "`cls_…`"), PageQuery),
    responses((status = 200, body = List<JoinToken>, description = "Join tokens without secrets"), Failure))]
async fn list(call: Call, Path(cluster): Path<String>, paging: Paging) -> Result<Json<List<JoinToken>>, Error> {
    Ok(Json(join_tokens::list(&call.state, &call.actor, &cluster, &paging).await?))
}

/// Create join token
///
/// Requires the role editor. The secret and the commands are shown only once.
#[utoipa::path(post, path = "/clusters/{cls}/join-tokens", tag = "join tokens", operation_id = "create_join_token",
    params(("cls" = String, Path, description = "`cls_…`")), request_body = CreateJoinToken,
    responses((status = 201, body = CreatedJoinToken, description = "The token and ready-to-run commands"), Failure))]
async fn create(
    call: Call,
    Path(cluster): Path<String>,
    Body(input): Body<CreateJoinToken>,
) -> Result<Response, Error> {
    let made = join_tokens::create(&call.state, &call.actor, &cluster, input).await?;
    Ok(shown_once(&made, &made.join_token.links.this))
}

/// Revoke join token
///
/// Requires the role editor. Nodes that joined with it are not affected.
#[utoipa::path(delete, path = "/join-tokens/{jtk}", tag = "join tokens", operation_id = "revoke_join_token",
    params(("jtk" = String, Path, description = "`jtk_…`")),
    responses((status = 204, description = "Join token revoked"), Failure))]
async fn revoke(call: Call, Path(id): Path<String>) -> Result<StatusCode, Error> {
    join_tokens::revoke(&call.state, &call.actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
