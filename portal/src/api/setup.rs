//! `/setup`: the first owner.

use super::reply::Failure;
use crate::app::setup;
use crate::connection::Connection;
use crate::error::Error;
use crate::extract::Body;
use crate::state::AppState;
use api_types::{Setup, SetupDone};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(complete))
}

/// Make the first owner
///
/// Takes the one-use token of the set-up link. Answers with a first API token, which is shown this once.
#[utoipa::path(post, path = "/setup", tag = "setup", operation_id = "complete_setup", security(()),
    request_body = Setup, responses((status = 201, body = SetupDone, description = "The owner is made"), Failure))]
async fn complete(
    State(state): State<AppState>,
    connection: Connection,
    Body(input): Body<Setup>,
) -> Result<(StatusCode, Json<SetupDone>), Error> {
    Ok((StatusCode::CREATED, Json(setup::complete(&state, &connection, input).await?)))
}
