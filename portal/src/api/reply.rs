//! The shapes of answers: items with their etag, things made, work begun.

use crate::app::operations;
use crate::error::Error;
use crate::extract::{Call, Wait};
use api_types::{Cluster, Node, NodePool, Organization, Project};
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{ETAG, HeaderName, HeaderValue, LOCATION};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToResponse};

/// Every error of every route, in the document.
pub struct Failure;

impl<'r> ToResponse<'r> for Failure {
    fn response() -> (&'r str, RefOr<utoipa::openapi::Response>) {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new()
            .description("What went wrong, who must act, and the next step")
            .content("application/problem+json", body);
        ("Failure", response.build().into())
    }
}

impl IntoResponses for Failure {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let failure = RefOr::Ref(Ref::from_response_name("Failure"));
        BTreeMap::from([("default".to_owned(), failure)])
    }
}

/// An item that has a version.
pub trait Versioned: Serialize {
    /// Its version, quoted as in `ETag`.
    fn etag(&self) -> &str;
    /// Its address.
    fn address(&self) -> &str;
    /// The operation to follow.
    fn operation(&self) -> Option<&str> {
        None
    }
}

macro_rules! versioned {
    ($($item:ident $($operation:ident)?),+) => {$(
        impl Versioned for $item {
            fn etag(&self) -> &str {
                &self.etag
            }

            fn address(&self) -> &str {
                &self.links.this
            }

            $(fn operation(&self) -> Option<&str> {
                self.$operation.as_deref()
            })?
        }
    )+};
}

versioned!(Organization, Project, Cluster operation_id, NodePool operation_id, Node operation_id);

/// What it means when the operation has ended well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The item is made: 201.
    Made,
    /// The item is changed: 200.
    Changed,
    /// The item is gone: 204.
    Gone,
}

/// 200 with the item's etag.
pub fn item(value: &impl Versioned) -> Response {
    with_header(Json(value).into_response(), ETAG, value.etag())
}

/// 201 with the item's address and etag.
pub fn made(value: &impl Versioned) -> Response {
    let response = with_header(item(value), LOCATION, value.address());
    (StatusCode::CREATED, response).into_response()
}

/// 201 with a thing whose secret is shown this once, and the address of the thing.
pub fn shown_once(value: &impl Serialize, address: &str) -> Response {
    with_header((StatusCode::CREATED, Json(value)).into_response(), LOCATION, address)
}

/// 202 with the operation's address; or, if the caller waits and it ends well in time, what `outcome` says.
pub async fn accepted<T: Versioned>(
    call: &Call,
    wait: Wait,
    (value, outcome): (T, Outcome),
    again: impl AsyncFnOnce() -> Result<T, Error>,
) -> Result<Response, Error> {
    if call.state.store().is_dry_run() {
        return Ok(item(&value));
    }
    let Some(operation) = value.operation().map(ToOwned::to_owned) else {
        return Ok(without_operation(&value, outcome));
    };
    if wait.duration.is_zero() {
        return Ok(accepted_response(&value, &operation, wait));
    }
    let ended = operations::get(&call.state, &call.actor, &operation, wait.duration).await?;
    let response = match (again().await, outcome, ended.state.as_str()) {
        (Ok(value), Outcome::Made, "succeeded") => made(&value),
        (Ok(value), Outcome::Changed, "succeeded") => item(&value),
        (Err(Error::NotFound { .. }), Outcome::Gone, _) => StatusCode::NO_CONTENT.into_response(),
        (now, ..) => accepted_response(&now?, &operation, wait),
    };
    Ok(preference_applied(response, wait))
}

/// 202 for work that has begun before this request asked.
pub fn under_way(value: &impl Versioned) -> Response {
    match value.operation() {
        Some(operation) => accepted_response(value, operation, Wait::default()),
        None => item(value),
    }
}

/// A node that goes with its pool has no operation of its own; it is on its way out all the same.
fn without_operation(value: &impl Versioned, outcome: Outcome) -> Response {
    match outcome {
        Outcome::Made => made(value),
        Outcome::Changed => item(value),
        Outcome::Gone => (StatusCode::ACCEPTED, item(value)).into_response(),
    }
}

fn accepted_response(value: &impl Versioned, operation: &str, wait: Wait) -> Response {
    let address = format!("{}/operations/{operation}", super::ROOT);
    let response = with_header(item(value), LOCATION, &address);
    preference_applied((StatusCode::ACCEPTED, response).into_response(), wait)
}

/// RFC 7240: says that `Prefer: wait` was honored.
fn preference_applied(response: Response, wait: Wait) -> Response {
    if !wait.preferred {
        return response;
    }
    let applied = format!("wait={}", wait.duration.as_secs());
    with_header(response, HeaderName::from_static("preference-applied"), &applied)
}

fn with_header(mut response: Response, name: HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}
