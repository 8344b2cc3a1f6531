//! What handlers take from a request, with rejections of ours in place of the framework's plain text.

use crate::auth::Actor;
use crate::error::Error;
use crate::paging::{PageQuery, Paging};
use crate::state::AppState;
use api_types::FieldError;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, OriginalUri, Query, Request};
use axum::http::header::{CONTENT_TYPE, HeaderMap, IF_MATCH};
use axum::http::request::Parts;
use migrations::AuditFilter;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};
use std::convert::Infallible;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::IntoParams;

/// The longest wait one request may ask for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Who calls, with the state to serve them from.
pub struct Call {
    /// The state of the portal.
    pub state: AppState,
    /// The caller.
    pub actor: Actor,
}

impl FromRequestParts<AppState> for Call {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        let actor = Actor::from_request_parts(parts, state).await?;
        Ok(Self { state: state.of(parts), actor })
    }
}

/// The state to serve a caller from whom nobody knows yet.
pub struct Anonymous(pub AppState);

impl FromRequestParts<AppState> for Anonymous {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        Ok(Self(state.of(parts)))
    }
}

/// A JSON body, checked: content type, size, syntax, shape; errors name the field.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for Body<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Error> {
        if !is_json(request.headers()) {
            return Err(Error::MediaType);
        }
        let bytes =
            Bytes::from_request(request, state).await.map_err(|rejection| Error::from_status(rejection.status()))?;
        parse(&bytes).map(Self)
    }
}

/// `application/json`, or `application/merge-patch+json` and its like.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Syntax first, then shape, so that each has its own code.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let value: serde_json::Value = serde_json::from_slice(bytes)
        .map_err(|error| Error::Malformed { detail: format!("the body is not valid JSON: {error}") })?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = pointer(error.path(), &error.inner().to_string());
        Error::field(&pointer, "INVALID_TYPE", error.inner())
    })
}

/// The JSON pointer of the field at fault. Missing and unknown fields are named only in serde's message.
fn pointer(path: &Path, message: &str) -> String {
    let segment = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        segment => format!("/{segment}"),
    };
    let mut pointer: String = path.iter().map(segment).filter(|part| part != "/?").collect();
    let named = ["missing field `", "unknown field `"].iter().find_map(|lead| message.strip_prefix(lead));
    if let Some(field) = named.and_then(|rest| rest.split('`').next())
        && !pointer.ends_with(&format!("/{field}"))
    {
        pointer = format!("{pointer}/{field}");
    }
    pointer
}

async fn query<T: DeserializeOwned>(parts: &mut Parts, name: &str) -> Result<T, Error> {
    let read = Query::<T>::from_request_parts(parts, &()).await;
    read.map(|Query(value)| value).map_err(|rejection| {
        let detail = rejection.body_text();
        let detail = detail.rsplit_once(": ").map_or(detail.clone(), |(_, cause)| cause.to_owned());
        Error::Invalid(vec![FieldError { pointer: format!("?{name}"), code: "INVALID_TYPE".into(), detail }])
    })
}

impl FromRequestParts<AppState> for Paging {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Error> {
        Self::parse(query::<PageQuery>(parts, "limit").await?, &list_key(parts))
    }
}

/// The path as the caller sent it, and the target of operations, which is part of what is listed.
fn list_key(parts: &Parts) -> String {
    let target =
        parts.uri.query().into_iter().flat_map(|query| query.split('&')).find(|pair| pair.starts_with("target="));
    let path = parts.extensions.get::<OriginalUri>().map_or(parts.uri.path(), |OriginalUri(uri)| uri.path());
    format!("{path}?{}", target.unwrap_or_default())
}

/// How long the caller is willing to wait for the operation to end: `?wait=N`, or `Prefer: wait=N` (RFC 7240).
/// Coerced to [`LONGEST_WAIT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// How long; zero when nothing was asked for.
    pub duration: Duration,
    /// Whether `Prefer` asked, so that `Preference-Applied` answers.
    pub preferred: bool,
}

/// The query parameter of [`Wait`].
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Seconds to wait for the operation to finish, at most 60; the header `Prefer: wait=N` does the same.
    pub wait: Option<u64>,
}

/// Whether a deletion is forced: `?force=true`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Force(pub bool);

/// The query parameter of [`Force`].
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ForceQuery {
    /// Requires the role admin: do not wait for what may never finish, such as machines, disruption budgets and finalizers.
    pub force: Option<bool>,
}

impl FromRequestParts<AppState> for Force {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Error> {
        Ok(Self(query::<ForceQuery>(parts, "force").await?.force.unwrap_or_default()))
    }
}

impl FromRequestParts<AppState> for Wait {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Error> {
        let asked = query::<WaitQuery>(parts, "wait").await?.wait;
        let preferred = if asked.is_none() { preferred_wait(&parts.headers) } else { None };
        let seconds = asked.or(preferred).unwrap_or(0);
        Ok(Self { duration: Duration::from_secs(seconds).min(LONGEST_WAIT), preferred: preferred.is_some() })
    }
}

fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split([',', ';'])).map(str::trim);
    preferences.find_map(|preference| preference.strip_prefix("wait=")?.trim_matches('"').parse().ok())
}

/// The etag the caller read, from `If-Match`; `None` means any.
#[derive(Clone, Debug, Default)]
pub struct IfMatch(pub Option<String>);

impl FromRequestParts<AppState> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Infallible> {
        let value = parts.headers.get(IF_MATCH).and_then(|value| value.to_str().ok());
        Ok(Self(value.filter(|value| *value != "*").map(ToOwned::to_owned)))
    }
}

impl IfMatch {
    /// The etag as operations take it.
    pub fn as_deref(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// What a PATCH may carry besides its body.
#[derive(Clone, Debug)]
pub struct Change {
    /// How long the caller waits.
    pub wait: Wait,
    /// The etag the caller read.
    pub if_match: IfMatch,
}

impl FromRequestParts<AppState> for Change {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        let wait = Wait::from_request_parts(parts, state).await?;
        let Ok(if_match) = IfMatch::from_request_parts(parts, state).await;
        Ok(Self { wait, if_match })
    }
}

/// Which thing's operations are wanted.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Target {
    /// ID of the target: `cls_…`, `np_…` or `nod_…`.
    pub target: String,
}

impl FromRequestParts<AppState> for Target {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Error> {
        query(parts, "target").await
    }
}

/// The query parameters of the audit log.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Entries on a page: 1 to 200, default 50. More than 200 is coerced to 200.
    pub limit: Option<u64>,
    /// `next_cursor` of the previous page.
    pub cursor: Option<String>,
    /// An action (`cluster.create`), or its first word (`cluster`).
    pub action: Option<String>,
    /// Actor: an ID (`usr_…`, `tok_…`, `nod_…`), a member's e-mail address, `system` or `anonymous`.
    pub actor: Option<String>,
    /// ID of the target.
    pub target: Option<String>,
    /// Not before this time (RFC 3339).
    pub since: Option<String>,
    /// Before this time (RFC 3339).
    pub until: Option<String>,
}

impl FromRequestParts<AppState> for AuditQuery {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Error> {
        query(parts, "limit").await
    }
}

impl AuditQuery {
    /// What is wanted, and which part of it, of the list at this path.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a time that is none, [`Error::CursorMismatch`].
    pub fn parse(self, list: &str) -> Result<(AuditFilter, Paging), Error> {
        let given = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let filter = AuditFilter {
            actor: given(self.actor),
            action: given(self.action),
            target: given(self.target),
            since: moment("since", given(self.since).as_deref())?,
            until: moment("until", given(self.until).as_deref())?,
        };
        let page = PageQuery { limit: self.limit, cursor: given(self.cursor), name: None };
        let paging = Paging::parse(page, &format!("{list}?{filter:?}"))?;
        Ok((filter, paging))
    }
}

/// A time, or a date alone: its beginning in UTC.
fn moment(name: &str, text: Option<&str>) -> Result<Option<OffsetDateTime>, Error> {
    let Some(text) = text else { return Ok(None) };
    let full = if text.len() == "2026-01-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    OffsetDateTime::parse(&full, &Rfc3339).map(Some).map_err(|_| {
        let detail = format!("`{text}` is not a time: use the form 2026-01-31T09:30:00Z or 2026-01-31");
        Error::Invalid(vec![FieldError { pointer: format!("?{name}"), code: "INVALID_TIME".into(), detail }])
    })
}

/// Whether one of the etags in an `If-Match` list is the current one. Quotes are optional, for people with curl.
///
/// # Errors
/// [`Error::PreconditionFailed`] with the current etag.
pub fn check_etag(wanted: Option<&str>, current: &str) -> Result<(), Error> {
    let plain = current.trim_matches('"');
    let same = |wanted: &str| wanted.split(',').any(|etag| etag.trim().trim_matches('"') == plain);
    if wanted.is_none_or(same) { Ok(()) } else { Err(Error::PreconditionFailed { current: current.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::{CreateCluster, PatchNodePool};

    fn fault<T: DeserializeOwned>(body: &str) -> (&'static str, Vec<(String, String)>) {
        let error = parse::<T>(body.as_bytes()).err().unwrap();
        let fields = error.problem().errors.into_iter().map(|field| (field.pointer, field.detail)).collect();
        (error.entry().code, fields)
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let table = [
            (r#"{"name":5}"#, "/name"),
            (r#"{}"#, "/name"),
            (r#"{"name":"a","nmae":"b"}"#, "/nmae"),
            (r#"{"name":"a","replicas":-1}"#, "/replicas"),
            (r#"{"name":"a","labels":{"x":1}}"#, "/labels/x"),
            (r#"[]"#, ""),
        ];
        for (body, pointer) in table {
            let (code, fields) = fault::<CreateCluster>(body);
            if body == "[]" && fields.is_empty() {
                continue;
            }
            assert_eq!((code, fields[0].0.as_str()), ("VALIDATION_FAILED", pointer), "{body} {fields:?}");
        }
        assert_eq!(fault::<PatchNodePool>("{").0, "MALFORMED_REQUEST");
    }

    #[test]
    fn etags_compare_with_or_without_quotes() {
        assert!(check_etag(None, "\"a.1\"").is_ok());
        assert!(check_etag(Some("a.1"), "\"a.1\"").is_ok());
        assert!(check_etag(Some("\"a.0\", \"a.1\""), "\"a.1\"").is_ok());
        assert!(matches!(check_etag(Some("\"a.0\""), "\"a.1\""), Err(Error::PreconditionFailed { .. })));
    }

    #[test]
    fn prefer_wait_is_read() {
        let mut headers = HeaderMap::new();
        headers.insert("prefer", "respond-async, wait=12".parse().unwrap());
        assert_eq!(preferred_wait(&headers), Some(12));
    }
}
