//! The catalogue of error codes, as served at `GET /api/v1/errors`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One entry of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorCode {
    /// The stable code, UPPER_SNAKE.
    pub code: String,
    /// The usual HTTP status.
    pub status: u16,
    /// Short text, the same for every occurrence.
    pub title: String,
    /// `user`, `platform`, `provider` or `quota`.
    pub class: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// The usual next step.
    pub remediation: String,
}
