//! One's own account: the password, and the browsers that are signed in with it.

use super::sessions::{self, Cookies};
use super::{find, view};
use crate::audit;
use crate::auth::policy::{self, Action, Object};
use crate::auth::{Actor, password};
use crate::connection::Connection;
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;
use api_types::{ChangePassword, EndedSessions, List, Session};
use axum::http::HeaderMap;
use migrations::{NewPassword, StoreError};
use secrecy::SecretString;
use tenant_controlplane::id::SessionId;

/// Changes the caller's password and ends all their other sessions. Whoever found a session open or a token must not be able
/// to take the account over, so the present password is asked for, a few times at most.
///
/// # Errors
/// [`Error::Invalid`] for a wrong present password and a new one that is too short; [`Error::RateLimited`].
pub async fn change_password(
    state: &AppState,
    actor: &Actor,
    connection: &Connection,
    input: ChangePassword,
) -> Result<EndedSessions, Error> {
    policy::authorize(actor, Action::ManageAccount, Object::Account)?;
    let (current, new) = (SecretString::from(input.current_password), SecretString::from(input.new_password));
    password::check("/new_password", &new)?;
    state.limiter().password(actor.user_id)?;
    let identity = state.store().identity();
    let user = identity.user(actor.user_id).await?.ok_or(Error::Unauthenticated)?;
    if user.password_hash.is_none() {
        return Err(Error::Conflict { detail: "this account has no password".into() });
    }
    if !state.passwords().verify(current, user.password_hash).await? {
        audit::password_refused(state, actor, connection.address).await;
        return Err(Error::field("/current_password", "WRONG_PASSWORD", "the current password is wrong"));
    }
    let hash = state.passwords().hash(new).await?;
    let keep = actor.session.as_ref().map(|session| session.hash.as_str());
    let (user, address) = (actor.user_id, Some(connection.address));
    let ended = identity.change_password(NewPassword { user, hash, keep, actor: actor.by(), address }).await?;
    Ok(EndedSessions { ended })
}

/// The caller's sessions.
///
/// # Errors
/// [`Error::Forbidden`] for a small token.
pub async fn list(state: &AppState, actor: &Actor, paging: &Paging) -> Result<List<Session>, Error> {
    policy::authorize(actor, Action::ManageAccount, Object::Account)?;
    let current = actor.session.as_ref().map(|session| session.id);
    let rows = state.store().identity().sessions(actor.user_id).await?;
    Ok(paging.cut(rows, |row| (row.id.uuid(), ""), |row| view::session(row, current)))
}

/// Ends one of the caller's sessions.
///
/// # Errors
/// [`Error::NotFound`], also for another person's; [`Error::Forbidden`] for a small token.
pub async fn end(state: &AppState, actor: &Actor, connection: &Connection, id: &str) -> Result<(), Error> {
    policy::authorize(actor, Action::ManageAccount, Object::Account)?;
    let id: SessionId = find::id(id, "session")?;
    let by = (actor.by(), connection.address);
    Ok(state.store().identity().end_session(actor.user_id, id, by).await?)
}

/// Ends all of the caller's sessions but the one that asks.
///
/// # Errors
/// [`Error::Forbidden`] for a small token.
pub async fn end_others(state: &AppState, actor: &Actor, connection: &Connection) -> Result<EndedSessions, Error> {
    policy::authorize(actor, Action::ManageAccount, Object::Account)?;
    let keep = actor.session.as_ref().map(|session| session.hash.as_str());
    let by = (actor.by(), connection.address);
    let ended = state.store().identity().end_other_sessions(actor.user_id, keep, by).await?;
    Ok(EndedSessions { ended })
}

/// Whether a link that sets a password still works.
///
/// # Errors
/// [`Error::PasswordLink`], [`Error::RateLimited`].
pub async fn check_link(state: &AppState, connection: &Connection, token: &str) -> Result<(), Error> {
    state.limiter().attempt(connection.address, "password link")?;
    state.store().identity().check_password_reset(token).await.map_err(gone)
}

/// Uses a link of the operator: sets the password, ends every session, and signs in.
///
/// # Errors
/// [`Error::PasswordLink`], [`Error::Invalid`], [`Error::RateLimited`].
pub async fn use_link(
    state: &AppState,
    (headers, connection): (&HeaderMap, &Connection),
    (token, new): (&str, SecretString),
) -> Result<Cookies, Error> {
    check_link(state, connection, token).await?;
    password::check("/password", &new)?;
    let hash = state.passwords().hash(new).await?;
    let reset = state.store().identity().complete_password_reset(token, hash, connection.address).await;
    sessions::start(state, &reset.map_err(gone)?, headers, connection).await
}

fn gone(error: StoreError) -> Error {
    match error {
        StoreError::NotFound { .. } => Error::PasswordLink,
        error => error.into(),
    }
}
