//! API tokens: what scripts and the CLI sign in with.

use crate::Links;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// An API token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// `tok_…`
    pub id: String,
    /// Always `token`.
    pub object: String,
    /// `org_…` it is valid for.
    pub organization_id: String,
    /// Display name.
    pub name: String,
    /// `owner`, `admin`, `editor` or `viewer`; never more than its owner's role.
    pub role: String,
    /// When it expires; null: never.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// When it was last used, to within about a minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used_at: Option<OffsetDateTime>,
    /// Creation time.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The resource's addresses.
    pub links: Links,
}

/// Create an API token for the caller.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Display name, 1 to 64 characters.
    pub name: String,
    /// `org_…` or name; optional if the caller has exactly one.
    #[serde(default)]
    pub organization: Option<String>,
    /// `owner`, `admin`, `editor` or `viewer`; default: the caller's own role.
    #[serde(default)]
    pub role: Option<String>,
    /// Lifetime, 60 seconds to 365 days; default 90 days.
    #[serde(default)]
    pub expires_in_seconds: Option<u64>,
}

/// A new API token with its secret, which is shown only once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// The token as listed.
    #[serde(flatten)]
    pub token: Token,
    /// The secret (`pilothouse_…`), to be sent as `Authorization: Bearer`.
    pub secret: String,
}

/// Never shows the secret.
impl std::fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedToken").field("token", &self.token).finish_non_exhaustive()
    }
}
