//! Signing in and out, for browsers.

use crate::auth::session;
use crate::connection::Connection;
use crate::error::Error;
use crate::state::AppState;
use axum::http::{HeaderMap, HeaderValue};
use secrecy::SecretString;

/// RFC 5321, 4.5.3.1.3, without the angle brackets. What is longer is nobody's, and is not worth being counted.
const LONGEST_EMAIL: usize = 254;

/// Checks address and password, and gives the cookie of a new session.
///
/// # Errors
/// [`Error::BadCredentials`], [`Error::RateLimited`].
pub async fn sign_in(
    state: &AppState,
    connection: &Connection,
    email: &str,
    password: &str,
) -> Result<HeaderValue, Error> {
    if email.len() > LONGEST_EMAIL {
        return Err(Error::BadCredentials);
    }
    state.limiter().attempt(connection.address, email)?;
    let user = state.store().identity().user_by_email(email.trim()).await?;
    let stored = user.as_ref().and_then(|user| user.password_hash.clone());
    let fits = state.passwords().verify(SecretString::from(password), stored).await?;
    let user = user.filter(|_| fits).ok_or(Error::BadCredentials)?;
    state.limiter().succeeded(connection.address, email);
    session::start(state, user.id, connection).await
}

/// Ends the session, and gives the cookie that clears the browser's.
///
/// # Errors
/// Errors of the store.
pub async fn sign_out(state: &AppState, headers: &HeaderMap, connection: &Connection) -> Result<HeaderValue, Error> {
    session::end(state, headers, connection).await
}
