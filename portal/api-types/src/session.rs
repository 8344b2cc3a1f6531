//! Browsers that somebody is signed in with, and the password they signed in with.

use crate::Links;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A browser's session. It expires at `expires_at`, and after 24 hours of inactivity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// `ses_…`
    pub id: String,
    /// Always `session`.
    pub object: String,
    /// Whether it is the session of this request.
    pub current: bool,
    /// Network of the last use: `192.0.2.0/24`, `2001:db8:1::/48`.
    pub network: String,
    /// The browser's `User-Agent`.
    pub user_agent: String,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was last used, to within about five minutes.
    #[serde(with = "time::serde::rfc3339")]
    pub last_used_at: OffsetDateTime,
    /// When it expires, regardless of use.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// The resource's addresses.
    pub links: Links,
}

/// Change the caller's password. All other sessions end.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    /// The current password.
    pub current_password: String,
    /// The new password: at least 12 characters.
    pub new_password: String,
}

/// Never shows a password.
impl std::fmt::Debug for ChangePassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangePassword").finish_non_exhaustive()
    }
}

/// Number of sessions ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndedSessions {
    /// Their number.
    pub ended: u64,
}
