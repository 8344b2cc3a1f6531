//! The outermost layer: every request gets an id, every error its representation, every answer one log line.
//!
//! Inside this layer an error response is a status and, if it is ours, a [`Fault`]. Here it becomes
//! `application/problem+json` for programs (`/api`, `/install`, probes) or a page for people. Rejections by the
//! framework have no fault and are read from their status, so nothing leaves as `text/plain`.

use crate::error::{Error, Fault};
use api_types::Problem;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::Instant;
use tower_http::csrf::ProtectionError;
use tracing::Instrument;
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// All but the unreserved characters (RFC 3986, 2.3), for a query.
pub(crate) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');
const LONGEST_REQUEST_ID: usize = 64;

/// The id of this request, as a request extension; in every error, log line and answer.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// What must be remembered of a request to answer its errors.
struct Seen {
    id: String,
    method: Method,
    path: String,
    htmx: bool,
}

/// Wraps everything else; see the head of this file.
pub async fn render_error(mut request: Request, next: Next) -> Response {
    let seen = Seen::of(&request);
    request.extensions_mut().insert(RequestId(seen.id.clone()));
    let span = tracing::info_span!("request", id = %seen.id);
    let started = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    let mut response = span.in_scope(|| seen.render_error(response));
    let (status, milliseconds) = (response.status().as_u16(), started.elapsed().as_millis());
    tracing::debug!(parent: &span, method = %seen.method, path = loggable(&seen.path), status, milliseconds, "answered");
    if let Ok(id) = HeaderValue::from_str(&seen.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

impl Seen {
    fn of(request: &Request) -> Self {
        Self {
            id: request_id(request.headers()),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            htmx: request.headers().contains_key("hx-request"),
        }
    }

    /// Whether a program asks. Everything under these paths speaks problem+json.
    fn is_program(&self) -> bool {
        let path = self.path.as_str();
        ["/api", "/install", "/healthz", "/readyz"]
            .iter()
            .any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    fn render_error(&self, mut response: Response) -> Response {
        if self.is_program() {
            for_programs(response.headers_mut());
        }
        let status = response.status();
        if !(status.is_client_error() || status.is_server_error()) {
            return response;
        }
        match self.problem(&response) {
            Some(problem) if self.is_program() => dressed(response, as_json(&problem)),
            Some(problem) if status == StatusCode::UNAUTHORIZED && problem.code == "UNAUTHENTICATED" => {
                self.to_sign_in()
            }
            Some(problem) => dressed(response, crate::web::error_page(&problem)),
            None => response,
        }
    }

    /// What went wrong; `None` where the response is rendered already.
    fn problem(&self, response: &Response) -> Option<Problem> {
        let mut problem = match response.extensions().get::<Fault>() {
            Some(Fault(problem)) => Problem::clone(problem),
            None if response.extensions().get::<ProtectionError>().is_some() => Error::CrossSite.problem(),
            None if !self.is_program() && is_html(response) => return None,
            None => Error::from_status(response.status()).problem(),
        };
        problem.request_id.clone_from(&self.id);
        problem.instance = Some(loggable(&self.path).to_owned());
        Some(problem)
    }

    /// People who are not signed in are brought to the sign-in page and from there back.
    fn to_sign_in(&self) -> Response {
        let next = match self.method {
            Method::GET if !self.htmx => format!("/signin?next={}", utf8_percent_encode(&self.path, PATH)),
            _ => "/signin".to_owned(),
        };
        let name = if self.htmx { HeaderName::from_static("hx-redirect") } else { LOCATION };
        let status = if self.htmx { StatusCode::UNAUTHORIZED } else { StatusCode::SEE_OTHER };
        (status, [(name, next)]).into_response()
    }
}

/// Answers to programs may hold secrets, and are never anything but what they say they are.
fn for_programs(headers: &mut HeaderMap) {
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// The new body with the status and the other headers (`Allow`, `Retry-After`, …) of the old one.
fn dressed(old: Response, mut new: Response) -> Response {
    *new.status_mut() = old.status();
    for (name, value) in old.headers() {
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            new.headers_mut().append(name, value.clone());
        }
    }
    new
}

/// An error before any request was looked at, as programs get it.
pub(crate) fn refused(error: Error) -> Response {
    let problem = error.problem();
    let mut response = dressed(error.into_response(), as_json(&problem));
    for_programs(response.headers_mut());
    response
}

fn as_json(problem: &Problem) -> Response {
    let body = serde_json::to_vec(problem).unwrap_or_default();
    ([(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))], body).into_response()
}

fn is_html(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html"))
}

/// The caller's own id if it is a plain word, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |text: &&str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (1..=LONGEST_REQUEST_ID).contains(&text.len()) && text.bytes().all(known)
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(plain);
    given.map_or_else(|| format!("req_{}", Uuid::now_v7().simple()), ToOwned::to_owned)
}

/// A setup link and one that sets a password hold their secrets in the path; the log does not need them.
fn loggable(path: &str) -> &str {
    match path {
        path if path.starts_with("/setup/") => "/setup/…",
        path if path.starts_with("/reset/") => "/reset/…",
        path => path,
    }
}
