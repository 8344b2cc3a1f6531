//! `Idempotency-Key`: a POST or PATCH that is sent twice is carried out once.
//!
//! The key belongs to the caller, the method and the path; the body's SHA-256 tells whether it is the same request. The
//! answer is kept for 24 hours, sealed, because it may hold a secret shown once; it is not told again to a caller who has lost
//! a role since. Of one person's keys the newest 2000 are kept. Not kept are answers that may be another
//! next time: failures of ours (5xx) and refusals that say `retryable`. What a crash interrupted is not made twice: the
//! store knows what the request has made.

use super::reply;
use crate::app::{clusters, organizations, pools, projects};
use crate::auth::Actor;
use crate::error::{Error, Fault};
use crate::state::AppState;
use api_types::Problem;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use migrations::{KeyLease, KeyState, Role};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::interval;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const LONGEST_KEY: usize = 255;
/// A third of the lease, so that one late write loses nothing.
const RENEWED_EVERY: Duration = Duration::from_secs(5);
/// The largest answer that is kept.
const LARGEST_ANSWER: usize = 1024 * 1024;
const KEPT_HEADERS: [&str; 4] = ["content-type", "location", "etag", "preference-applied"];

/// The key of a request that has one and may use it.
///
/// # Errors
/// [`Error::Malformed`] for a key that is empty, too long, or no plain text.
pub fn key(parts: &request::Parts) -> Result<Option<String>, Error> {
    let Some(value) = parts.headers.get(KEY).filter(|_| [Method::POST, Method::PATCH].contains(&parts.method)) else {
        return Ok(None);
    };
    let plain = value.to_str().ok().filter(|text| (1..=LONGEST_KEY).contains(&text.len()));
    let detail = || format!("the `Idempotency-Key` must have 1 to {LONGEST_KEY} printable ASCII characters");
    plain.map(|text| Some(text.to_owned())).ok_or_else(|| Error::Malformed { detail: detail() })
}

/// Carries the request out unless it was carried out before.
///
/// # Errors
/// [`Error::IdempotencyInProgress`], [`Error::IdempotencyKeyReused`]; errors of the store and of reading the body.
pub async fn once(
    (state, actor): (&AppState, &Actor),
    key: &str,
    request: Request,
    next: Next,
) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let body = Bytes::from_request(Request::new(body), state).await;
    let body = body.map_err(|rejection| Error::from_status(rejection.status()))?;
    let id = digest(&[&actor.by().to_string(), parts.method.as_str(), parts.uri.path(), key]);
    match state.store().idempotency().begin(actor.user_id, &id, &digest(&[&body])).await? {
        KeyState::Answered(kept) => replayed(actor, &kept),
        KeyState::InProgress => Err(Error::IdempotencyInProgress),
        KeyState::Reused => Err(Error::IdempotencyKeyReused),
        KeyState::Taken { claim, made } => {
            let response = match made_before(state, actor, made.as_deref()).await? {
                Some(response) => response,
                None => renewing(state, &claim, next.run(restored(state, (parts, body), &claim))).await,
            };
            kept((state, actor), &claim, response).await
        }
    }
}

/// SHA-256 of parts that cannot run into each other, as hexadecimal digits.
fn digest<T: AsRef<[u8]>>(parts: &[T]) -> String {
    let mut hash = Sha256::new();
    for part in parts.iter().map(AsRef::as_ref) {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The request as it came, with a store that writes what is made beside the key.
fn restored(state: &AppState, (mut parts, body): (request::Parts, Bytes), claim: &KeyLease) -> Request {
    parts.extensions.insert(state.store().with_key_lease(claim.clone()));
    Request::from_parts(parts, Body::from(body))
}

/// Renews the lease while the work goes on.
async fn renewing(state: &AppState, claim: &KeyLease, work: impl Future<Output = Response>) -> Response {
    let mut work = std::pin::pin!(work);
    let mut ticks = interval(RENEWED_EVERY);
    ticks.tick().await;
    loop {
        tokio::select! {
            response = &mut work => return response,
            _ = ticks.tick() => {
                if let Err(error) = state.store().idempotency().renew(claim).await {
                    tracing::warn!(%error, "idempotency key lease not renewed");
                }
            }
        }
    }
}

/// The answer for what an attempt before this one made without living to say so. A secret shown once is lost with that
/// attempt, so what carries one is made anew.
async fn made_before(state: &AppState, actor: &Actor, made: Option<&str>) -> Result<Option<Response>, Error> {
    let Some(id) = made else { return Ok(None) };
    let answer = match id.split_once('_').map(|(prefix, _)| prefix) {
        Some("cls") => clusters::get(state, actor, id).await.map(|item| reply::under_way(&item)),
        Some("np") => pools::get(state, actor, id).await.map(|item| reply::under_way(&item)),
        Some("prj") => projects::get(state, actor, id).await.map(|item| reply::made(&item)),
        Some("org") => organizations::get(state, actor, id).await.map(|item| reply::made(&item)),
        _ => return Ok(None),
    };
    match answer {
        Ok(response) => Ok(Some(marked(response))),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
    problem: Option<Problem>,
    /// What the caller might do where when it was answered: organization and role.
    roles: Vec<(String, Role)>,
}

fn roles(actor: &Actor) -> Vec<(String, Role)> {
    actor.memberships.iter().map(|(organization, role)| (organization.id.to_string(), *role)).collect()
}

/// Whether the caller still may all that they might when the answer was given. An answer may hold a secret of that time, so
/// whoever has lost a role since does not hear it again; whether the request itself would still be allowed is not enough:
/// what is left to the caller's role, such as a kubeconfig's, was more then.
fn still_entitled(actor: &Actor, then: &[(String, Role)]) -> Result<(), Error> {
    let lost = then.iter().find(|(organization, role)| actor.role_in(organization).is_none_or(|now| now < *role));
    let Some((organization, role)) = lost else { return Ok(()) };
    let held = actor.role_in(organization).map_or("none", Role::as_str);
    Err(Error::Forbidden { needed: role.as_str(), held })
}

/// Keeps an answer that would be the same next time, and gives it on.
async fn kept((state, actor): (&AppState, &Actor), claim: &KeyLease, response: Response) -> Result<Response, Error> {
    let keys = state.store().idempotency();
    let problem = response.extensions().get::<Fault>().map(|Fault(problem)| Problem::clone(problem));
    if response.status().is_server_error() || problem.as_ref().is_some_and(|problem| problem.retryable) {
        keys.release(claim).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, LARGEST_ANSWER).await.map_err(Error::internal)?;
    let header = |name: &&str| Some(((*name).to_owned(), parts.headers.get(*name)?.to_str().ok()?.to_owned()));
    let answer = Kept {
        status: parts.status.as_u16(),
        headers: KEPT_HEADERS.iter().filter_map(header).collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
        problem,
        roles: roles(actor),
    };
    let answer = serde_json::to_vec(&answer).map_err(Error::internal)?;
    if let Err(error) = keys.complete(claim, &answer).await {
        // It was carried out: better told without being kept than not told.
        tracing::warn!(%error, "response not stored for its idempotency key");
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn replayed(actor: &Actor, kept: &[u8]) -> Result<Response, Error> {
    let kept: Kept = serde_json::from_slice(kept).map_err(Error::internal)?;
    still_entitled(actor, &kept.roles)?;
    let mut response = kept.body.into_response();
    *response.status_mut() = StatusCode::from_u16(kept.status).map_err(Error::internal)?;
    response.headers_mut().remove(CONTENT_TYPE);
    for (name, value) in &kept.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(Error::internal)?;
        response.headers_mut().insert(name, HeaderValue::try_from(value.as_str()).map_err(Error::internal)?);
    }
    if let Some(problem) = kept.problem {
        response.extensions_mut().insert(Fault(Arc::new(problem)));
    }
    Ok(marked(response))
}

fn marked(mut response: Response) -> Response {
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_digest_do_not_run_together() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["a"]).len(), 64);
    }
}
