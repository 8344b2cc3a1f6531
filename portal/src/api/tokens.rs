//! `/tokens`: API tokens by id.

use super::reply::Failure;
use crate::app::tokens;
use crate::error::Error;
use crate::extract::Call;
use crate::state::AppState;
use axum::extract::Path;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(revoke))
}

/// Revoke token
///
/// The caller's own, or with the role admin any of the organization's.
#[utoipa::path(delete, path = "/tokens/{tok}", tag = "tokens", operation_id = "revoke_token",
    params(("tok" = String, Path, description = "`tok_…`")),
    responses((status = 204, description = "Token revoked"), Failure))]
async fn revoke(call: Call, Path(id): Path<String>) -> Result<StatusCode, Error> {
    tokens::revoke(&call.state, &call.actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
