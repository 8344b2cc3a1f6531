//! `/me`: who is asking, and their tokens.

use super::reply::{Failure, shown_once};
use crate::app::{me, tokens};
use crate::error::Error;
use crate::extract::{Body, Call};
use crate::paging::{PageQuery, Paging};
use crate::state::AppState;
use api_types::{CreateToken, CreatedToken, List, Me, Token};
use axum::Json;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get)).routes(routes!(list_tokens, create_token))
}

/// Show the caller
#[utoipa::path(get, path = "/me", tag = "me", operation_id = "get_me",
    responses((status = 200, body = Me, description = "The caller and their memberships"), Failure))]
async fn get(call: Call) -> Result<Json<Me>, Error> {
    Ok(Json(me::get(&call.state, &call.actor).await?))
}

/// List the caller's tokens
#[utoipa::path(get, path = "/me/tokens", tag = "tokens", operation_id = "list_my_tokens", params(PageQuery),
    responses((status = 200, body = List<Token>, description = "Tokens without secrets"), Failure))]
async fn list_tokens(call: Call, paging: Paging) -> Result<Json<List<Token>>, Error> {
    Ok(Json(tokens::list(&call.state, &call.actor, &paging).await?))
}

/// Create token
///
/// The secret is shown only once. A token has at most its owner's permissions.
#[utoipa::path(post, path = "/me/tokens", tag = "tokens", operation_id = "create_my_token", request_body = CreateToken,
    responses((status = 201, body = CreatedToken, description = "The token with its secret"), Failure))]
async fn create_token(call: Call, Body(input): Body<CreateToken>) -> Result<Response, Error> {
    let made = tokens::create(&call.state, &call.actor, input).await?;
    Ok(shown_once(&made, &made.token.links.this))
}
