//! Browsers that somebody signed in with before: a cookie that says so, which only the platform can make.
//!
//! It opens nothing. It only lets its account be tried from this browser while others guess at it from elsewhere (OWASP,
//! "Slow down online guessing attacks with device cookies"). It is bound to the present password: a new one ends them all.

use super::cookie;
use crate::connection::Connection;
use crate::error::Error;
use axum::http::header::{HeaderMap, HeaderValue};
use migrations::{ExposeSecret, Store, User};
use time::{Duration, OffsetDateTime};

const COOKIE: &str = "__Host-pilothouse_device";
const LIFETIME: Duration = Duration::days(90);
/// Of its signature, in hexadecimal digits: 128 bits.
const DIGITS: usize = 32;

/// The cookie to set after this person signed in.
///
/// # Errors
/// [`Error::Internal`].
pub fn remember(store: &Store, user: &User, connection: &Connection) -> Result<HeaderValue, Error> {
    let end = (OffsetDateTime::now_utc() + LIFETIME).unix_timestamp();
    let value = format!("{end}.{}", signature(store, user, end)?);
    cookie::set(COOKIE, &value, LIFETIME, connection)
}

/// Whether this person signed in with this browser before, and has the same password still.
///
/// # Errors
/// [`Error::Internal`].
pub fn is_known(store: &Store, user: &User, headers: &HeaderMap, connection: &Connection) -> Result<bool, Error> {
    let parts = cookie::sent(COOKIE, headers, connection).and_then(|value| value.split_once('.'));
    let Some((end, given)) = parts.and_then(|(end, given)| Some((end.parse::<i64>().ok()?, given))) else {
        return Ok(false);
    };
    let expected = signature(store, user, end)?;
    let same = expected.len() == given.len()
        && expected.bytes().zip(given.bytes()).fold(0, |differ, (ours, theirs)| differ | (ours ^ theirs)) == 0;
    Ok(same && end > OffsetDateTime::now_utc().unix_timestamp())
}

fn signature(store: &Store, user: &User, end: i64) -> Result<String, Error> {
    let password = user.password_hash.as_ref().map(|hash| hash.expose_secret()).unwrap_or_default();
    let mut mac = store.mac("device", &format!("{} {end} {password}", user.id))?;
    mac.truncate(DIGITS);
    Ok(mac)
}
