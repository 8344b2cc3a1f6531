//! The catalog of error codes, as served at `GET /api/v1/errors`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One error code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorCode {
    /// The stable code, UPPER_SNAKE.
    pub code: String,
    /// The usual HTTP status.
    pub status: u16,
    /// Short text, the same for every occurrence of the code.
    pub title: String,
    /// `user`, `platform`, `provider` or `quota`.
    pub class: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Recommended action.
    pub remediation: String,
}
