//! API tokens in the `Authorization` header.

use super::Actor;
use crate::app::view;
use crate::audit;
use crate::connection::Connection;
use crate::error::Error;
use crate::state::AppState;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use std::sync::Arc;

/// The bearer token sent, if any.
///
/// # Errors
/// [`Error::Unauthenticated`] for a header that is not `Bearer …`: whoever sends one means it.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let (scheme, secret) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Error::Unauthenticated)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(Some(secret.trim())) } else { Err(Error::Unauthenticated) }
}

/// The person behind a token, reaching only the token's organization.
///
/// # Errors
/// [`Error::Unauthenticated`] for a token that is unknown, revoked or past its time, and where its owner has left.
pub async fn actor(state: &AppState, secret: &str, connection: &Connection) -> Result<Actor, Error> {
    let identity = state.store().identity();
    let token = identity.token_by_secret(secret).await?.ok_or(Error::Unauthenticated)?;
    let user = identity.user(token.user).await?.ok_or(Error::Unauthenticated)?;
    let memberships = identity.organizations_of(user.id).await?.into_iter();
    let reached = memberships.filter(|(organization, _)| organization.id == token.organization);
    let memberships = reached.map(|(known, role)| (known, role.min(token.role))).collect();
    audit::token_network(state, &token, connection).await;
    let (id, until) = (Some(token.id), token.expires_at);
    let (session, refused) = (None, Arc::default());
    Ok(Actor { user_id: user.id, user: view::user(user), memberships, token: id, until, session, refused })
}
