//! `/me/password` and `/me/sessions`: the caller's own account.

use super::reply::Failure;
use crate::app::account;
use crate::connection::Connection;
use crate::error::Error;
use crate::extract::{Body, Call};
use crate::paging::{PageQuery, Paging};
use crate::state::AppState;
use api_types::{ChangePassword, EndedSessions, List, Session};
use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(change_password)).routes(routes!(list, end_others)).routes(routes!(end))
}

/// Change password
///
/// Requires the current password, and ends all other sessions. A token must have the role admin.
#[utoipa::path(post, path = "/me/password", tag = "me", operation_id = "change_my_password",
    request_body = ChangePassword,
    responses((status = 200, body = EndedSessions, description = "Password changed; all other sessions ended"), Failure))]
async fn change_password(
    call: Call,
    connection: Connection,
    Body(input): Body<ChangePassword>,
) -> Result<Json<EndedSessions>, Error> {
    Ok(Json(account::change_password(&call.state, &call.actor, &connection, input).await?))
}

/// List sessions
///
/// The caller's active sessions. A token must have the role admin.
#[utoipa::path(get, path = "/me/sessions", tag = "me", operation_id = "list_my_sessions", params(PageQuery),
    responses((status = 200, body = List<Session>, description = "The caller's sessions"), Failure))]
async fn list(call: Call, paging: Paging) -> Result<Json<List<Session>>, Error> {
    Ok(Json(account::list(&call.state, &call.actor, &paging).await?))
}

/// End all other sessions
#[utoipa::path(delete, path = "/me/sessions", tag = "me", operation_id = "end_my_other_sessions",
    responses((status = 204, description = "All other sessions ended"), Failure))]
async fn end_others(call: Call, connection: Connection) -> Result<StatusCode, Error> {
    account::end_others(&call.state, &call.actor, &connection).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End session
#[utoipa::path(delete, path = "/me/sessions/{ses}", tag = "me", operation_id = "end_my_session",
    params(("ses" = String, Path, description = "`ses_…`")),
    responses((status = 204, description = "Session ended"), Failure))]
async fn end(call: Call, connection: Connection, Path(id): Path<String>) -> Result<StatusCode, Error> {
    account::end(&call.state, &call.actor, &connection, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
