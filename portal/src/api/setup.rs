//! `/setup`: the first owner.

use super::reply::Failure;
use crate::app::setup;
use crate::connection::Connection;
use crate::error::Error;
use crate::extract::{Anonymous, Body};
use crate::state::AppState;
use api_types::{Setup, SetupDone};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(complete))
}

/// Create the first owner
///
/// Takes the single-use token of the setup link. Answers with a first API token, which is shown only once.
#[utoipa::path(post, path = "/setup", tag = "setup", operation_id = "complete_setup", security(()),
    request_body = Setup, responses((status = 201, body = SetupDone, description = "Owner created"), Failure))]
async fn complete(
    Anonymous(state): Anonymous,
    connection: Connection,
    Body(input): Body<Setup>,
) -> Result<Response, Error> {
    match setup::complete(&state, &connection, input).await? {
        Some(done) => Ok((StatusCode::CREATED, Json(done)).into_response()),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}
