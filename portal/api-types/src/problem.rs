//! The one error body (RFC 9457, `application/problem+json`), used for every error without exception.

use crate::QuotaUse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, who must act, and the next step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Address of the explanation of `code`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short text for the code; the same for every occurrence.
    pub title: String,
    /// The HTTP status, repeated.
    pub status: u16,
    /// What happened in this occurrence.
    pub detail: String,
    /// The request path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Stable code, UPPER_SNAKE; see `GET /api/v1/errors`.
    pub code: String,
    /// Who must act: `user`, `platform` (the operator), `provider`, or `quota` (a limit is reached: whoever may delete
    /// can make room, and the operators can raise it).
    pub class: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Recommended action.
    pub remediation: String,
    /// The request ID, for support. Missing where a problem is embedded in a resource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// The invalid fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The operation that caused it, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
    /// The exceeded quota, with code `QUOTA_REACHED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaUse>,
}

/// One invalid field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer into the request body (RFC 6901), or `?name` for a query parameter.
    pub pointer: String,
    /// Stable code, UPPER_SNAKE.
    pub code: String,
    /// What is wrong with it.
    pub detail: String,
}
