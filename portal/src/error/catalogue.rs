//! The catalogue of codes. A code, once served, keeps its meaning; `GET /api/v1/errors` shows this very list.

use api_types::ErrorCode;

/// One code: what it means wherever it appears.
#[derive(Debug)]
pub struct Entry {
    /// Stable, UPPER_SNAKE.
    pub code: &'static str,
    /// The HTTP status it comes with.
    pub status: u16,
    /// Short text for people.
    pub title: &'static str,
    /// `user`, `platform`, `provider` or `quota`; whose move each is: `web::problem::whose`.
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

macro_rules! catalogue {
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

catalogue! {
    MALFORMED_REQUEST 400 "user" false "The request cannot be read", "Send valid JSON as described in /api/v1/openapi.json.";
    CURSOR_MISMATCH 400 "user" false "The cursor belongs to another list", "Start again without `cursor`.";
    UNAUTHENTICATED 401 "user" false "Not signed in", "Sign in, or send `Authorization: Bearer pilothouse_…` with a token that has not expired.";
    BAD_CREDENTIALS 401 "user" false "Wrong e-mail address or password", "Check both and try again.";
    SETUP_TOKEN_INVALID 401 "user" false "The set-up link is not valid", "Use the newest set-up link; `pilothouse up` prints one for as long as set-up is not done.";
    PASSWORD_LINK_INVALID 401 "user" false "The link is not valid", "A link works once, for an hour, and until the next one is made. Ask the operator for another: `pilothouse admin reset-password EMAIL`.";
    PERMISSION_DENIED 403 "user" false "Not allowed", "Ask an owner or admin of the organization to do it, or for a higher role.";
    LOCAL_MACHINES_RESTRICTED 403 "user" false "Local machines restrict this", "Choose the role view or ask an admin of the organization; for a pool, make a new cluster or join machines of your own.";
    CROSS_SITE_REQUEST 403 "user" false "Sent from another site", "Open the portal itself and try again. A proxy in front of it must keep `Host` and `Origin`.";
    NOT_FOUND 404 "user" false "Not found", "Check the id or name, and that you are in the right organization.";
    ROUTE_NOT_FOUND 404 "user" false "Nothing at this address", "See /api/v1/openapi.json for the addresses there are.";
    METHOD_NOT_ALLOWED 405 "user" false "Method not allowed", "The `Allow` header lists the methods of this address.";
    NAME_TAKEN 409 "user" false "The name is taken", "Choose another name.";
    CONFLICT 409 "user" true "Not possible now", "Look at the present state and try again.";
    QUOTA_REACHED 409 "quota" false "The limit is reached", "Delete what nobody needs, or ask the people who run this portal for a higher limit (`pilothouse admin quota set`).";
    CLUSTER_NOT_READY 409 "user" true "The cluster is not ready yet", "Wait for the operation `operation_id` (GET /api/v1/operations/{id}?wait=60) and try again.";
    DELETION_IN_PROGRESS 409 "user" false "Being deleted", "Wait until it is gone.";
    IDEMPOTENCY_IN_PROGRESS 409 "user" true "The same request is under way", "Wait a second and send the same request with the same `Idempotency-Key` again.";
    PRECONDITION_FAILED 412 "user" false "Changed in the meantime", "Read it again and repeat the change with the new etag.";
    BODY_TOO_LARGE 413 "user" false "The body is too large", "Send at most 1 MiB.";
    UNSUPPORTED_MEDIA_TYPE 415 "user" false "Not JSON", "Send `content-type: application/json`.";
    VALIDATION_FAILED 422 "user" false "A value cannot be accepted", "Correct the fields listed in `errors`.";
    IDEMPOTENCY_KEY_REUSED 422 "user" false "The key belongs to another request", "Use a new `Idempotency-Key` for every new request; repeat one only with the same body.";
    RATE_LIMITED 429 "user" true "Too many attempts", "Wait as long as `Retry-After` says.";
    REQUEST_LIMIT_EXCEEDED 429 "user" true "Too many requests", "Wait as long as `Retry-After` says; `RateLimit-Policy` names the limit.";
    STREAM_LIMIT_EXCEEDED 429 "user" true "Too many live pages", "Close a page that shows a cluster live, and load this one again.";
    SETUP_DONE 409 "user" false "Set-up was done already", "Sign in. If nobody can, run `pilothouse admin token` on the machine.";
    INTERNAL 500 "platform" true "Something failed on our side", "Try again. If it stays, give the request id to the operators: it leads to the log line.";
    OVERLOADED 503 "platform" true "Too much at once", "Wait as long as `Retry-After` says and send it again. If it stays, the operators find the reason in the platform's log.";
    STREAMS_FULL 503 "platform" true "No place for another live page", "Load the page again to see what changed; it is live again when there is a place.";
    DATABASE_UNAVAILABLE 503 "platform" true "The database does not answer", "Try again in a few seconds. Nothing was changed.";
    KUBECONFIG_NOT_ACCEPTED 503 "platform" false "The cluster did not accept the kubeconfig", "It was withdrawn. See what is wrong with the cluster (GET /api/v1/clusters/{id}) and issue another.";
    TIMEOUT 504 "platform" true "Not done in time", "Try again; `?wait=` may be at most 60.";
}

/// The catalogue as it is served.
pub fn all() -> Vec<ErrorCode> {
    ALL.iter().map(|entry| entry.shown()).collect()
}

/// The title of a code, if it is one of ours.
pub fn title(code: &str) -> Option<&'static str> {
    ALL.iter().find(|entry| entry.code == code).map(|entry| entry.title)
}
