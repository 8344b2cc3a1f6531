//! The one error of the portal, with two representations.
//!
//! Handlers and operations answer [`Error`]. As a response it is only a status and a note of what happened; the
//! middleware in [`crate::error_response`] renders it: `application/problem+json` for programs, a page for people. So a
//! rejection by the framework itself (405, 413, an unreadable body) and an error of ours leave in the same shape.

pub mod catalog;

use crate::app::view;
use crate::text::sentence;
use api_types::{FieldError, Problem, QuotaUse};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use catalog::Entry;
use migrations::StoreError;
use std::sync::Arc;

/// What an error has as its cause: anything, kept for the log and never shown.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Everything that can be answered instead of the requested resource.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session, no token, or one that has ended.
    #[error("no valid session or token was sent")]
    Unauthenticated,
    /// Signing in failed; which of the two was wrong is not told.
    #[error("the e-mail address or the password is wrong")]
    BadCredentials,
    /// The caller may see the thing but not do this to it.
    #[error("this requires the role {needed}; your role here is {held}")]
    Forbidden {
        /// The least role that may.
        needed: &'static str,
        /// The caller's role.
        held: &'static str,
    },
    /// A browser sent it from another site.
    #[error("the request came from another site")]
    CrossSite,
    /// Not there, or not the caller's to see.
    #[error("{what} not found")]
    NotFound {
        /// The kind of thing, lower case.
        what: &'static str,
    },
    /// No route has this path.
    #[error("no route matches this path")]
    NoRoute,
    /// The path exists, the method does not.
    #[error("method not allowed for this path")]
    MethodNotAllowed,
    /// The body is no JSON, or the request is broken otherwise.
    #[error("{detail}")]
    Malformed {
        /// What is broken.
        detail: String,
    },
    /// Fields with values that cannot be.
    #[error("{}", first_detail(.0))]
    Invalid(Vec<FieldError>),
    /// The cursor belongs to another list or filter.
    #[error("the cursor does not belong to this list and filter")]
    CursorMismatch,
    /// Not `application/json`.
    #[error("the body must be sent as `content-type: application/json`")]
    MediaType,
    /// More than the body limit.
    #[error("the body is larger than 1 MiB")]
    TooLarge,
    /// Not done in time.
    #[error("the request timed out")]
    Timeout,
    /// The name is in use under the same parent.
    #[error("the name `{name}` is already used by another {what}")]
    NameTaken {
        /// The kind of thing, lower case.
        what: &'static str,
        /// The name asked for.
        name: String,
    },
    /// There are as many as there may be.
    #[error("{detail}")]
    QuotaReached {
        /// Of what, and how many.
        detail: String,
        /// The same for programs.
        quota: QuotaUse,
    },
    /// A person watches as many pages live as they may.
    #[error("you have {most} live pages open, which is the maximum")]
    StreamLimit {
        /// How many a person may have.
        most: usize,
    },
    /// The portal's limit of live pages is reached.
    #[error("{most} live pages are open, which is the maximum of this portal")]
    StreamsFull {
        /// How many there are.
        most: usize,
    },
    /// Local machines that share the platform's kernel forbid it.
    #[error("{detail}")]
    LocalMachinesRestricted {
        /// What is forbidden, and why.
        detail: String,
    },
    /// The state of the thing does not allow it.
    #[error("{detail}")]
    Conflict {
        /// Why.
        detail: String,
    },
    /// `If-Match` names another version.
    #[error("the resource has changed since it was read: its ETag is now {current}")]
    PreconditionFailed {
        /// The etag it has now.
        current: String,
    },
    /// The cluster cannot do that before it runs.
    #[error("the cluster is not ready yet: {state_message}")]
    ClusterNotReady {
        /// What it is doing.
        state_message: String,
        /// The operation to wait for.
        operation: Option<String>,
    },
    /// The cluster was not seen to accept a kubeconfig, which is therefore not handed out.
    #[error("the cluster did not accept the kubeconfig in time: {reason}")]
    NotAccepted {
        /// What the cluster says of itself.
        reason: String,
    },
    /// It is being deleted.
    #[error("the {what} is being deleted")]
    Deleting {
        /// The kind of thing, lower case.
        what: &'static str,
    },
    /// Too many tries.
    #[error("too many attempts; try again in {retry_after_seconds} s")]
    RateLimited {
        /// Seconds to wait.
        retry_after_seconds: u64,
    },
    /// More requests than a caller may send.
    #[error("more than {most} {what} per minute; try again in {retry_after_seconds} s")]
    RequestLimit {
        /// What was counted, in the plural.
        what: &'static str,
        /// How many a minute may have.
        most: u32,
        /// Seconds to wait.
        retry_after_seconds: u64,
    },
    /// Another request with this key is being carried out.
    #[error("a request with this `Idempotency-Key` is in progress")]
    IdempotencyInProgress,
    /// The key was used for another request.
    #[error("this `Idempotency-Key` was used with a different request")]
    IdempotencyKeyReused,
    /// The first owner exists.
    #[error("setup is already completed")]
    SetupDone,
    /// The set-up token is wrong, used or replaced.
    #[error("the setup token is not valid")]
    SetupToken,
    /// The link that sets a password is wrong, used, replaced or past its time.
    #[error("the link is invalid, used or expired")]
    PasswordLink,
    /// More at once than the platform, or one address, may have.
    #[error("{what}; try again in {retry_after_seconds} s")]
    Overloaded {
        /// What there is too much of.
        what: &'static str,
        /// Seconds to wait.
        retry_after_seconds: u64,
    },
    /// The database cannot be reached now.
    #[error("the database is not responding")]
    Unavailable(#[source] Source),
    /// A fault of ours.
    #[error("internal server error")]
    Internal(#[source] Source),
}

fn first_detail(errors: &[FieldError]) -> &str {
    errors.first().map_or("a value is invalid", |error| error.detail.as_str())
}

impl Error {
    /// One field of the body at fault; `pointer` is a JSON pointer such as `/name`.
    pub fn field(pointer: &str, code: &str, detail: impl ToString) -> Self {
        Self::Invalid(vec![FieldError { pointer: pointer.into(), code: code.into(), detail: detail.to_string() }])
    }

    /// The same for a part of the body: its fields are below `prefix`.
    #[must_use]
    pub fn within(self, prefix: &str) -> Self {
        match self {
            Self::Invalid(fields) => {
                let below = |field: FieldError| FieldError { pointer: format!("{prefix}{}", field.pointer), ..field };
                Self::Invalid(fields.into_iter().map(below).collect())
            }
            error => error,
        }
    }

    /// A fault of ours with its cause.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::Internal(source.into())
    }

    /// The error a bare status of the framework stands for.
    pub fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthenticated,
            StatusCode::NOT_FOUND => Self::NoRoute,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::MediaType,
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Self::Timeout,
            status if status.is_client_error() => Self::Malformed { detail: "the request cannot be read".into() },
            status => Self::internal(format!("the framework answered {status}")),
        }
    }

    /// Its line in the catalog.
    pub fn entry(&self) -> &'static Entry {
        match self {
            Self::Unauthenticated => &catalog::UNAUTHENTICATED,
            Self::BadCredentials => &catalog::BAD_CREDENTIALS,
            Self::Forbidden { .. } => &catalog::PERMISSION_DENIED,
            Self::CrossSite => &catalog::CROSS_SITE_REQUEST,
            Self::NotFound { .. } => &catalog::NOT_FOUND,
            Self::NoRoute => &catalog::ROUTE_NOT_FOUND,
            Self::MethodNotAllowed => &catalog::METHOD_NOT_ALLOWED,
            Self::Malformed { .. } => &catalog::MALFORMED_REQUEST,
            Self::Invalid(_) => &catalog::VALIDATION_FAILED,
            Self::CursorMismatch => &catalog::CURSOR_MISMATCH,
            Self::MediaType => &catalog::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => &catalog::BODY_TOO_LARGE,
            Self::Timeout => &catalog::TIMEOUT,
            Self::NameTaken { .. } => &catalog::NAME_TAKEN,
            Self::QuotaReached { .. } => &catalog::QUOTA_REACHED,
            Self::StreamLimit { .. } => &catalog::STREAM_LIMIT_EXCEEDED,
            Self::StreamsFull { .. } => &catalog::STREAMS_FULL,
            Self::LocalMachinesRestricted { .. } => &catalog::LOCAL_MACHINES_RESTRICTED,
            Self::Conflict { .. } => &catalog::CONFLICT,
            Self::PreconditionFailed { .. } => &catalog::PRECONDITION_FAILED,
            Self::ClusterNotReady { .. } => &catalog::CLUSTER_NOT_READY,
            Self::NotAccepted { .. } => &catalog::KUBECONFIG_NOT_ACCEPTED,
            Self::Deleting { .. } => &catalog::DELETION_IN_PROGRESS,
            Self::RateLimited { .. } => &catalog::RATE_LIMITED,
            Self::RequestLimit { .. } => &catalog::REQUEST_LIMIT_EXCEEDED,
            Self::IdempotencyInProgress => &catalog::IDEMPOTENCY_IN_PROGRESS,
            Self::IdempotencyKeyReused => &catalog::IDEMPOTENCY_KEY_REUSED,
            Self::SetupDone => &catalog::SETUP_DONE,
            Self::SetupToken => &catalog::SETUP_TOKEN_INVALID,
            Self::PasswordLink => &catalog::PASSWORD_LINK_INVALID,
            Self::Overloaded { .. } => &catalog::OVERLOADED,
            Self::Unavailable(_) => &catalog::DATABASE_UNAVAILABLE,
            Self::Internal(_) => &catalog::INTERNAL,
        }
    }

    /// The body for programs; `type`, `instance` and `request_id` are filled in by [`crate::error_response`].
    pub fn problem(&self) -> Problem {
        let entry = self.entry();
        Problem {
            kind: entry.address(),
            title: entry.title.into(),
            status: entry.status,
            detail: sentence(&self.to_string()),
            instance: None,
            code: entry.code.into(),
            class: entry.class.into(),
            retryable: entry.retryable,
            remediation: entry.remediation.into(),
            request_id: String::new(),
            errors: self.fields(),
            operation_id: self.operation(),
            quota: self.quota(),
        }
    }

    fn quota(&self) -> Option<QuotaUse> {
        match self {
            Self::QuotaReached { quota, .. } => Some(quota.clone()),
            _ => None,
        }
    }

    fn fields(&self) -> Vec<FieldError> {
        match self {
            Self::Invalid(errors) => errors.clone(),
            Self::NameTaken { .. } => {
                let (pointer, code) = ("/name".to_owned(), catalog::NAME_TAKEN.code.to_owned());
                vec![FieldError { pointer, code, detail: sentence(&self.to_string()) }]
            }
            _ => Vec::new(),
        }
    }

    fn operation(&self) -> Option<String> {
        match self {
            Self::ClusterNotReady { operation, .. } => operation.clone(),
            _ => None,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what } => Self::NotFound { what },
            StoreError::Conflict { message, .. } => Self::Conflict { detail: message },
            StoreError::Restricted { message } => Self::LocalMachinesRestricted { detail: message },
            StoreError::Quota { quota, .. } => {
                let quota = view::quota_use(quota);
                Self::QuotaReached { detail: error.to_string(), quota }
            }
            error @ StoreError::Unavailable(_) => Self::Unavailable(Box::new(error)),
            error => Self::Internal(Box::new(error)),
        }
    }
}

/// What an error leaves on its response for the middleware that renders it.
#[derive(Clone)]
pub struct Fault(pub Arc<Problem>);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.log();
        let problem = self.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if let Some((name, value)) = self.header() {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(Fault(Arc::new(problem)));
        response
    }
}

impl Error {
    /// Faults of ours are logged with every cause; what the caller did wrong is not.
    fn log(&self) {
        if let Self::Internal(source) | Self::Unavailable(source) = self {
            let causes: Vec<String> = chain(source.as_ref()).map(ToString::to_string).collect();
            tracing::error!(code = self.entry().code, cause = causes.join(": "), "request failed");
        }
    }

    fn header(&self) -> Option<(header::HeaderName, HeaderValue)> {
        match self {
            Self::Unauthenticated => Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            Self::RateLimited { retry_after_seconds }
            | Self::RequestLimit { retry_after_seconds, .. }
            | Self::Overloaded { retry_after_seconds, .. } => {
                Some((header::RETRY_AFTER, (*retry_after_seconds).into()))
            }
            Self::PreconditionFailed { current } => {
                HeaderValue::from_str(current).ok().map(|value| (header::ETAG, value))
            }
            Self::Unavailable(_) => Some((header::RETRY_AFTER, HeaderValue::from_static("5"))),
            Self::IdempotencyInProgress => Some((header::RETRY_AFTER, HeaderValue::from_static("1"))),
            Self::ClusterNotReady { .. } => Some((header::RETRY_AFTER, HeaderValue::from_static("2"))),
            Self::StreamLimit { .. } | Self::StreamsFull { .. } => {
                Some((header::RETRY_AFTER, HeaderValue::from_static("30")))
            }
            _ => None,
        }
    }
}

fn chain<'a>(
    first: &'a (dyn std::error::Error + Send + Sync + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    let first: &(dyn std::error::Error + 'static) = first;
    std::iter::successors(Some(first), |error| error.source())
}
