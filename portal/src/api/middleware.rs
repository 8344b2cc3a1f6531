//! What is the same for every route: who calls, how often, with which parameters, for real or to try out, once or again.
//!
//! The order matters. Credentials come first, so that anonymous callers learn nothing; then the count, so that a refused request
//! costs too; then the query; and last what may answer in the handler's place.

use super::idempotency;
use super::openapi::{self, Known, Routes};
use crate::auth::rate::Kind;
use crate::auth::{self, Actor};
use crate::error::Error;
use crate::state::AppState;
use api_types::FieldError;
use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::header::{ETAG, LOCATION};
use axum::http::{Method, StatusCode, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use utoipa::openapi::OpenApi;

/// What the middleware knows: the state, and the routes as the OpenAPI document lists them.
#[derive(Clone)]
pub struct Rules {
    state: AppState,
    routes: Arc<Routes>,
}

impl Rules {
    /// Reads the routes out of the document.
    pub fn new(state: AppState, document: &OpenApi) -> Self {
        Self { state, routes: Arc::new(openapi::routes(document)) }
    }
}

/// The layer.
pub async fn check_request(State(rules): State<Rules>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some((route, known)) = rules.route(&parts) else { return next.run(Request::from_parts(parts, body)).await };
    let actor = match auth::of_program(&mut parts, &rules.state).await {
        Ok(actor) => Some(actor),
        Err(Error::Unauthenticated) if known.open => None,
        Err(error) => return error.into_response(),
    };
    let counted = actor.as_ref().map(|actor| rules.state.rates().count(actor, kind(&parts, &route)));
    let counted = counted.unwrap_or_default();
    if let Err(error) = counted.granted() {
        return counted.with_headers(error.into_response());
    }
    if let Some(actor) = actor {
        parts.extensions.insert(actor);
    }
    let done = tried_or_done(&rules.state, &known, (Request::from_parts(parts, body), next)).await;
    counted.with_headers(done.unwrap_or_else(Error::into_response))
}

impl Rules {
    /// The route of a request with what is known of it; `None` for what the handlers' table refuses.
    fn route(&self, parts: &request::Parts) -> Option<(String, Known)> {
        let route = parts.extensions.get::<MatchedPath>()?.as_str().to_owned();
        let method = if parts.method == Method::HEAD { Method::GET } else { parts.method.clone() };
        let known = self.routes.get(&(route.clone(), method.to_string()))?.clone();
        Some((route, known))
    }
}

/// Trying out a cluster makes none.
fn kind(parts: &request::Parts, route: &str) -> Kind {
    match Kind::of(&parts.method, route) {
        Kind::Create if matches!(validate_only(parts), Ok(true)) => Kind::Write,
        kind => kind,
    }
}

async fn tried_or_done(state: &AppState, known: &Known, (request, next): (Request, Next)) -> Result<Response, Error> {
    let (mut parts, body) = request.into_parts();
    check_names(known, &parts)?;
    if validate_only(&parts)? {
        parts.extensions.insert(state.store().dry_run());
        let gone = parts.method == Method::DELETE;
        return Ok(dry_run_response(next.run(Request::from_parts(parts, body)).await, gone));
    }
    let (actor, key) = (parts.extensions.get::<Actor>().cloned(), idempotency::key(&parts)?);
    let request = Request::from_parts(parts, body);
    match (actor, key) {
        (Some(actor), Some(key)) => idempotency::once((state, &actor), &key, request, next).await,
        _ => Ok(next.run(request).await),
    }
}

/// A name that the route does not read is a mistake, and better said than ignored.
fn check_names(known: &Known, parts: &request::Parts) -> Result<(), Error> {
    let Some((name, _)) = query(parts).into_iter().find(|(name, _)| !known.queries.contains(name)) else {
        return Ok(());
    };
    let names = if known.queries.is_empty() { "none".to_owned() } else { known.queries.join(", ") };
    let detail = format!("unknown query parameter `{name}`; supported: {names}");
    Err(Error::Invalid(vec![FieldError { pointer: format!("?{name}"), code: "UNKNOWN_PARAMETER".into(), detail }]))
}

fn query(parts: &request::Parts) -> Vec<(String, String)> {
    Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map(|Query(pairs)| pairs).unwrap_or_default()
}

/// `?validate_only=true`: everything is checked and nothing is changed (AIP-163).
fn validate_only(parts: &request::Parts) -> Result<bool, Error> {
    match query(parts).iter().find(|(name, _)| name == "validate_only").map(|(_, value)| value.as_str()) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => {
            let detail = "use `validate_only=true` or omit it".to_owned();
            let field = FieldError { pointer: "?validate_only".into(), code: "INVALID_TYPE".into(), detail };
            Err(Error::Invalid(vec![field]))
        }
    }
}

/// What would have been done: 200 with the thing as it would be, or 204; nothing was made that has an address.
fn dry_run_response(mut response: Response, gone: bool) -> Response {
    if !response.status().is_success() {
        return response;
    }
    if gone || response.status() == StatusCode::NO_CONTENT {
        return StatusCode::NO_CONTENT.into_response();
    }
    *response.status_mut() = StatusCode::OK;
    for name in [LOCATION, ETAG] {
        response.headers_mut().remove(name);
    }
    response
}
