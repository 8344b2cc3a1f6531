//! The one error body (RFC 9457, `application/problem+json`), used for every error without exception.

use crate::QuotaUse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, who can do something about it, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Address of the explanation of `code`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short text for the code; the same for every occurrence.
    pub title: String,
    /// The HTTP status, repeated.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The path that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Stable code, UPPER_SNAKE; see `GET /api/v1/errors`.
    pub code: String,
    /// Who can fix it: `user`, `platform` (the operators), `provider`, or `quota` (a limit is reached: whoever may delete
    /// can make room, and the operators can raise it).
    pub class: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The next step, for a person.
    pub remediation: String,
    /// The request id; quote it when asking for help. Missing where a problem is shown inside an item.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// The fields at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The operation in the way or at fault, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
    /// The quota that is used up, with code `QUOTA_REACHED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaUse>,
}

/// One field at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer into the request body (RFC 6901), or `?name` for a query parameter.
    pub pointer: String,
    /// Stable code, UPPER_SNAKE.
    pub code: String,
    /// What is wrong with it.
    pub detail: String,
}
