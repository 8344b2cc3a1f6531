//! Cookies of ours: HttpOnly and SameSite=Lax. Over TLS they are Secure too, and named `__Host-…`: browsers take such a
//! cookie from this very host only, so a tenant's API server under the same domain cannot slip somebody its own.

use crate::connection::Connection;
use crate::error::Error;
use axum::http::header::{COOKIE, HeaderMap, HeaderValue};
use time::Duration;

/// The name of a cookie by its name over TLS (`__Host-…`).
fn name(secure_name: &'static str, connection: &Connection) -> &'static str {
    if connection.tls { secure_name } else { secure_name.trim_start_matches("__Host-") }
}

/// The value that was sent; `None` also for an empty one.
pub fn sent<'a>(secure_name: &'static str, headers: &'a HeaderMap, connection: &Connection) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let wanted = name(secure_name, connection);
    pairs.find(|(found, value)| *found == wanted && !value.is_empty()).map(|(_, value)| value)
}

/// The `Set-Cookie` line; a lifetime of zero clears it.
///
/// # Errors
/// [`Error::Internal`] for a value that no header can carry.
pub fn set(
    secure_name: &'static str,
    value: &str,
    lifetime: Duration,
    connection: &Connection,
) -> Result<HeaderValue, Error> {
    let secure = if connection.tls { "; Secure" } else { "" };
    let (name, seconds) = (name(secure_name, connection), lifetime.whole_seconds());
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}");
    HeaderValue::from_str(&text).map_err(Error::internal)
}
