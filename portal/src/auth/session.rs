//! Sessions of browsers: a random value in a cookie, its SHA-256 in the store. They end after seven days, after a day
//! without use, and with a new password.

use super::address::shared_network;
use super::{Actor, cookie};
use crate::connection::Connection;
use crate::error::Error;
use crate::state::AppState;
use axum::http::header::{HeaderMap, HeaderValue, USER_AGENT};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use migrations::NewSession;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use tenant_controlplane::id::UserId;
use time::{Duration, OffsetDateTime};

/// The name of the cookie over TLS.
pub const COOKIE_NAME: &str = "__Host-pilothouse_session";
const LIFETIME: Duration = Duration::days(7);
const SECRET_BYTES: usize = 32;
/// Characters kept of what a browser says it is.
const USER_AGENT_LENGTH: usize = 120;

/// Begins a session and gives the cookie to set.
///
/// # Errors
/// [`Error::Internal`] if there is no randomness; errors of the store.
pub async fn start(
    state: &AppState,
    user: UserId,
    headers: &HeaderMap,
    connection: &Connection,
) -> Result<HeaderValue, Error> {
    let mut secret = [0_u8; SECRET_BYTES];
    OsRng.try_fill_bytes(&mut secret).map_err(Error::internal)?;
    let text = URL_SAFE_NO_PAD.encode(secret);
    let session = NewSession {
        hash: hash(&text),
        user,
        expires_at: OffsetDateTime::now_utc() + LIFETIME,
        address: connection.address,
        network: shared_network(connection.address),
        user_agent: user_agent(headers),
    };
    state.store().identity().put_session(session).await?;
    cookie::set(COOKIE_NAME, &text, LIFETIME, connection)
}

/// Ends the session of these headers, if there is one, and gives the cookie that clears the browser's.
///
/// # Errors
/// Errors of the store.
pub async fn end(state: &AppState, headers: &HeaderMap, connection: &Connection) -> Result<HeaderValue, Error> {
    if let Some(secret) = cookie::sent(COOKIE_NAME, headers, connection) {
        state.store().identity().delete_session(&hash(secret), connection.address).await?;
    }
    cookie::set(COOKIE_NAME, "", Duration::ZERO, connection)
}

/// The person behind a session cookie.
///
/// # Errors
/// [`Error::Unauthenticated`] without a cookie, or with one that means nothing any more.
pub async fn actor(state: &AppState, headers: &HeaderMap, connection: &Connection) -> Result<Actor, Error> {
    let actor = holder(state, headers, connection).await?;
    if let Some(session) = &actor.session {
        state.store().identity().note_session(session, &shared_network(connection.address)).await;
    }
    Ok(actor)
}

/// The same, without counting as a use: a page that is left open keeps no session alive.
///
/// # Errors
/// As [`actor`].
pub async fn holder(state: &AppState, headers: &HeaderMap, connection: &Connection) -> Result<Actor, Error> {
    let secret = cookie::sent(COOKIE_NAME, headers, connection).ok_or(Error::Unauthenticated)?;
    let identity = state.store().identity();
    let session = identity.session(&hash(secret)).await?.ok_or(Error::Unauthenticated)?;
    let user = identity.user(session.user).await?.ok_or(Error::Unauthenticated)?;
    Ok(Actor { session: Some(session), ..Actor::of_user(state, user).await? })
}

/// What is stored: 64 hexadecimal digits that do not lead back to the secret.
fn hash(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the browser says it is: printable ASCII, and no more than fits a line.
fn user_agent(headers: &HeaderMap) -> String {
    let user_agent = headers.get(USER_AGENT).map(|value| value.as_bytes()).unwrap_or_default();
    let printable = user_agent.iter().filter(|byte| byte.is_ascii_graphic() || **byte == b' ');
    let text: String = printable.take(USER_AGENT_LENGTH).map(|byte| char::from(*byte)).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_says_is_cut_and_cleaned() {
        let kept = |bytes: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, HeaderValue::from_bytes(bytes).unwrap());
            user_agent(&headers)
        };
        assert_eq!(kept(b" Firefox/150 \xc3\xa9"), "Firefox/150");
        assert_eq!(kept(&[b'x'; 500]).len(), USER_AGENT_LENGTH);
        assert_eq!(user_agent(&HeaderMap::new()), "");
    }
}
