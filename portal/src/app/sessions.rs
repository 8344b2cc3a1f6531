//! Signing in and out, for browsers.

use crate::audit;
use crate::auth::{device, session};
use crate::connection::Connection;
use crate::error::Error;
use crate::state::AppState;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::AppendHeaders;
use migrations::User;
use secrecy::SecretString;

/// RFC 5321, 4.5.3.1.3, without the angle brackets. What is longer is nobody's, and is not worth being counted.
const LONGEST_EMAIL: usize = 254;

/// What somebody signs in with, and from where.
pub struct Attempt<'a> {
    /// As it was typed.
    pub email: &'a str,
    /// As it was typed.
    pub password: &'a str,
    /// Of the request.
    pub headers: &'a HeaderMap,
    /// Of the request.
    pub connection: &'a Connection,
}

/// The cookies of somebody who signed in.
#[derive(Debug)]
pub struct Cookies {
    /// Of the session.
    pub session: HeaderValue,
    /// Of the browser, which is known from now on.
    pub device: HeaderValue,
}

impl Cookies {
    /// As headers of an answer.
    pub fn headers(self) -> AppendHeaders<[(HeaderName, HeaderValue); 2]> {
        AppendHeaders([(SET_COOKIE, self.session), (SET_COOKIE, self.device)])
    }
}

/// Checks address and password, and gives the cookies of a new session.
///
/// # Errors
/// [`Error::BadCredentials`], [`Error::RateLimited`].
pub async fn sign_in(state: &AppState, attempt: Attempt<'_>) -> Result<Cookies, Error> {
    let (email, address) = (attempt.email.trim(), attempt.connection.address);
    if email.len() > LONGEST_EMAIL {
        return Err(Error::BadCredentials);
    }
    let user = state.store().identity().user_by_email(email).await?;
    let known = match &user {
        Some(user) => device::is_known(state.store(), user, attempt.headers, attempt.connection)?,
        None => false,
    };
    if let Err(error) = state.limiter().sign_in(address, email, known) {
        audit::sign_in_refused(state, user.as_ref(), email, (address, "too many attempts"));
        return Err(error);
    }
    let stored = user.as_ref().and_then(|user| user.password_hash.clone());
    let fits = state.passwords().verify(SecretString::from(attempt.password), stored).await?;
    match user {
        Some(user) if fits => {
            state.limiter().succeeded(address, email, known);
            start(state, &user, attempt.headers, attempt.connection).await
        }
        user => {
            audit::sign_in_refused(state, user.as_ref(), email, (address, "wrong password"));
            Err(Error::BadCredentials)
        }
    }
}

/// Begins a session of somebody who has shown who they are.
///
/// # Errors
/// Errors of the store.
pub(super) async fn start(
    state: &AppState,
    user: &User,
    headers: &HeaderMap,
    connection: &Connection,
) -> Result<Cookies, Error> {
    let device = device::remember(state.store(), user, connection)?;
    Ok(Cookies { session: session::start(state, user.id, headers, connection).await?, device })
}

/// Ends the session, and gives the cookie that clears the browser's.
///
/// # Errors
/// Errors of the store.
pub async fn sign_out(state: &AppState, headers: &HeaderMap, connection: &Connection) -> Result<HeaderValue, Error> {
    session::end(state, headers, connection).await
}
