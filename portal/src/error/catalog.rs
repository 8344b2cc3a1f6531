//! The catalog of codes. A code, once served, keeps its meaning; `GET /api/v1/errors` shows this very list: the errors of requests, which
//! are here, and the problems of resources, which are the domain's ([`ProblemCode`]).

use api_types::ErrorCode;
use tenant_controlplane::status::{Class, ProblemCode, ProblemEntry};

/// One code: what it means wherever it appears.
#[derive(Debug)]
pub struct Entry {
    /// Stable, UPPER_SNAKE.
    pub code: &'static str,
    /// The HTTP status it comes with.
    pub status: u16,
    /// Short text for people.
    pub title: &'static str,
    /// `user`, `platform`, `provider` or `quota`; who must act: `web::problem::action_by`.
    pub class: &'static str,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The next step.
    pub remediation: &'static str,
}

impl Entry {
    /// The address of its explanation, relative to the portal.
    pub fn address(&self) -> String {
        format!("/api/v1/errors#{}", self.code)
    }

    fn shown(&self) -> ErrorCode {
        ErrorCode {
            code: self.code.into(),
            status: self.status,
            title: self.title.into(),
            class: self.class.into(),
            retryable: self.retryable,
            remediation: self.remediation.into(),
        }
    }
}

macro_rules! catalog {
    ($($name:ident $status:literal $class:literal $retryable:literal $title:literal, $remediation:literal;)+) => {
        $(
            #[doc = $title]
            pub static $name: Entry = Entry {
                code: stringify!($name),
                status: $status,
                title: $title,
                class: $class,
                retryable: $retryable,
                remediation: $remediation,
            };
        )+

        /// Every code, in the order of the statuses.
        static ALL: &[&Entry] = &[$(&$name),+];
    };
}

catalog! {
    MALFORMED_REQUEST 400 "user" false "Malformed request", "Send valid JSON as described in /api/v1/openapi.json.";
    CURSOR_MISMATCH 400 "user" false "Invalid cursor", "Start again without `cursor`.";
    UNAUTHENTICATED 401 "user" false "Authentication required", "Sign in, or send `Authorization: Bearer pilothouse_…` with a token that has not expired.";
    BAD_CREDENTIALS 401 "user" false "Wrong e-mail address or password", "Check both and try again.";
    SETUP_TOKEN_INVALID 401 "user" false "Invalid setup link", "Use the newest setup link; until setup is completed, `pilothouse admin setup-link` on the platform host prints one.";
    PASSWORD_LINK_INVALID 401 "user" false "Invalid password link", "A link is single-use, valid for one hour, and replaced by the next one. Ask the platform operator for another: `pilothouse admin reset-password EMAIL`.";
    PERMISSION_DENIED 403 "user" false "Permission denied", "Ask an owner or admin of the organization to do it, or for a higher role.";
    LOCAL_MACHINES_RESTRICTED 403 "user" false "Restricted by local machines", "Choose the role view or ask an admin of the organization; for a pool, create a new cluster or join your own machines.";
    CROSS_SITE_REQUEST 403 "user" false "Cross-site request rejected", "Open the portal itself and try again. A proxy in front of it must preserve `Host` and `Origin`.";
    NOT_FOUND 404 "user" false "Not found", "Check the ID or name and the organization.";
    ROUTE_NOT_FOUND 404 "user" false "No such route", "See /api/v1/openapi.json for the available routes.";
    METHOD_NOT_ALLOWED 405 "user" false "Method not allowed", "Use one of the methods in the `Allow` header.";
    NAME_TAKEN 409 "user" false "Name already in use", "Choose another name.";
    CONFLICT 409 "user" true "Conflict with current state", "Check the current state and try again.";
    QUOTA_REACHED 409 "quota" false "Quota exceeded", "Delete unused resources, or ask the platform operator for a higher limit (`pilothouse admin quota set`).";
    CLUSTER_NOT_READY 409 "user" true "Cluster not ready", "Wait for the operation `operation_id` (GET /api/v1/operations/{id}?wait=60) and try again.";
    DELETION_IN_PROGRESS 409 "user" false "Deletion in progress", "Wait for the deletion to finish.";
    IDEMPOTENCY_IN_PROGRESS 409 "user" true "Request already in progress", "Wait a second, then repeat the same request with the same `Idempotency-Key`.";
    PRECONDITION_FAILED 412 "user" false "Precondition failed", "Read the resource again and repeat the change with the new ETag.";
    BODY_TOO_LARGE 413 "user" false "Request body too large", "Send at most 1 MiB.";
    UNSUPPORTED_MEDIA_TYPE 415 "user" false "Unsupported media type", "Send `content-type: application/json`.";
    VALIDATION_FAILED 422 "user" false "Validation failed", "Correct the fields listed in `errors`.";
    IDEMPOTENCY_KEY_REUSED 422 "user" false "Idempotency key reused", "Use a new `Idempotency-Key` for each new request; repeat a key only with the same body.";
    RATE_LIMITED 429 "user" true "Too many attempts", "Wait for the time in `Retry-After`, then try again.";
    REQUEST_LIMIT_EXCEEDED 429 "user" true "Too many requests", "Wait for the time in `Retry-After`, then try again; `RateLimit-Policy` gives the limit.";
    STREAM_LIMIT_EXCEEDED 429 "user" true "Too many live pages", "Close another live page, then reload this one.";
    SETUP_DONE 409 "user" false "Setup already completed", "Sign in. If nobody can, run `pilothouse admin token` on the platform host.";
    INTERNAL 500 "platform" true "Internal server error", "Try again. If the problem persists, send the request ID to the platform operator.";
    OVERLOADED 503 "platform" true "Service overloaded", "Wait for the time in `Retry-After`, then try again. If the problem persists, the platform operator finds the reason in the log.";
    STREAMS_FULL 503 "platform" true "Too many live pages on this portal", "Reload the page to see changes; live updates resume when capacity is available.";
    DATABASE_UNAVAILABLE 503 "platform" true "Database unavailable", "Try again in a few seconds. Nothing was changed.";
    KUBECONFIG_NOT_ACCEPTED 503 "platform" false "Kubeconfig not accepted by the cluster", "It was revoked. Check the state of the cluster (GET /api/v1/clusters/{id}), then issue another.";
    TIMEOUT 504 "platform" true "Request timed out", "Try again; `?wait=` may be at most 60.";
}

/// The codes that requests are answered with.
pub fn of_requests() -> Vec<ErrorCode> {
    ALL.iter().map(|entry| entry.shown()).collect()
}

/// The catalog as it is served. What both a request and a resource can meet is there once, as requests meet it.
pub fn all() -> Vec<ErrorCode> {
    let problems = ProblemCode::ALL.iter().map(|code| code.entry());
    let problems = problems.filter(|problem| ALL.iter().all(|entry| entry.code != problem.code));
    of_requests().into_iter().chain(problems.map(|problem| of_problem(&problem))).collect()
}

/// What a request for something with a problem of that class would have been answered.
pub const fn status(class: Class) -> u16 {
    match class {
        Class::User | Class::Quota => 409,
        Class::Provider => 502,
        Class::Platform => 500,
    }
}

/// A problem that a resource can have: its reconcile is retried, so it may be over later.
fn of_problem(problem: &ProblemEntry) -> ErrorCode {
    ErrorCode {
        code: problem.code.into(),
        status: status(problem.class),
        title: problem.title.into(),
        class: problem.class.to_string(),
        retryable: true,
        remediation: problem.remediation.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_is_served_once_with_its_text() {
        let served = all();
        let codes: HashSet<&str> = served.iter().map(|entry| entry.code.as_str()).collect();
        assert_eq!(codes.len(), served.len(), "a code has one meaning");
        assert!(served.iter().all(|entry| !entry.title.is_empty() && !entry.remediation.is_empty()));
        assert!(
            ALL.iter()
                .map(|entry| entry.code)
                .chain(ProblemCode::ALL.iter().map(|code| code.as_str()))
                .all(|code| codes.contains(code))
        );
    }

    #[test]
    fn what_both_can_meet_means_the_same() {
        for problem in ProblemCode::ALL.iter().map(|code| code.entry()) {
            for entry in ALL.iter().filter(|entry| entry.code == problem.code) {
                assert_eq!((entry.title, entry.class), (problem.title, problem.class.to_string().as_str()));
            }
        }
    }
}
