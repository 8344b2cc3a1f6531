//! Sessions of browsers: a random value in a cookie, its SHA-256 in the store.
//!
//! The cookie is HttpOnly and SameSite=Lax. Over TLS it is Secure too, and named `__Host-…`: browsers take such a cookie from
//! this very host only, so a tenant's API server under the same domain cannot slip somebody its own session.

use super::Actor;
use crate::connection::Connection;
use crate::error::Error;
use crate::state::AppState;
use axum::http::header::{COOKIE, HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use migrations::{Session, User};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use tenant_controlplane::id::UserId;
use time::{Duration, OffsetDateTime};

/// The name of the cookie over TLS.
pub const COOKIE_NAME: &str = "__Host-pilothouse_session";
const COOKIE_NAME_IN_CLEAR: &str = "pilothouse_session";
const LIFETIME: Duration = Duration::days(7);
const SECRET_BYTES: usize = 32;

/// Begins a session and gives the cookie to set.
///
/// # Errors
/// [`Error::Internal`] if there is no randomness; errors of the store.
pub async fn start(state: &AppState, user: UserId, connection: &Connection) -> Result<HeaderValue, Error> {
    let mut secret = [0_u8; SECRET_BYTES];
    OsRng.try_fill_bytes(&mut secret).map_err(Error::internal)?;
    let text = URL_SAFE_NO_PAD.encode(secret);
    let now = OffsetDateTime::now_utc();
    let session = Session { hash: hash(&text), user, created_at: now, expires_at: now + LIFETIME };
    state.store().identity().put_session(session).await?;
    cookie(&text, LIFETIME, connection)
}

/// Ends the session of these headers, if there is one, and gives the cookie that clears the browser's.
///
/// # Errors
/// Errors of the store.
pub async fn end(state: &AppState, headers: &HeaderMap, connection: &Connection) -> Result<HeaderValue, Error> {
    if let Some(secret) = sent(headers, connection) {
        state.store().identity().delete_session(&hash(secret)).await?;
    }
    cookie("", Duration::ZERO, connection)
}

/// The person behind a session cookie.
///
/// # Errors
/// [`Error::Unauthenticated`] without a cookie, or with one that means nothing any more.
pub async fn actor(state: &AppState, headers: &HeaderMap, connection: &Connection) -> Result<Actor, Error> {
    let secret = sent(headers, connection).ok_or(Error::Unauthenticated)?;
    let user = user(state, secret).await?.ok_or(Error::Unauthenticated)?;
    Actor::of_user(state, user).await
}

async fn user(state: &AppState, secret: &str) -> Result<Option<User>, Error> {
    let identity = state.store().identity();
    let session = identity.session(&hash(secret)).await?;
    let Some(session) = session.filter(|session| session.expires_at > OffsetDateTime::now_utc()) else {
        return Ok(None);
    };
    Ok(identity.user(session.user).await?)
}

/// What is stored: 64 hexadecimal digits that do not lead back to the secret.
fn hash(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The session cookie among the cookies sent.
fn sent<'a>(headers: &'a HeaderMap, connection: &Connection) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, value)| *found == name(connection) && !value.is_empty()).map(|(_, value)| value)
}

fn name(connection: &Connection) -> &'static str {
    if connection.tls { COOKIE_NAME } else { COOKIE_NAME_IN_CLEAR }
}

fn cookie(value: &str, lifetime: Duration, connection: &Connection) -> Result<HeaderValue, Error> {
    let secure = if connection.tls { "; Secure" } else { "" };
    let seconds = lifetime.whole_seconds();
    let name = name(connection);
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}");
    HeaderValue::from_str(&text).map_err(Error::internal)
}
