//! The audit log: who did what.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// One entry of an organization's audit log. Entries are never changed, and go after 365 days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// `aud_…`
    pub id: String,
    /// Always `audit_entry`.
    pub object: String,
    /// `org_…` whose matter it is.
    pub organization_id: Option<String>,
    /// Who: `usr_…`, `tok_…`, `nod_…`, `system` for the platform and its operator, `anonymous` for somebody without a valid
    /// credential.
    pub actor: String,
    /// The e-mail address or the token's name, where the actor still exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_name: Option<String>,
    /// What: a noun and a verb, such as `cluster.create` or `user.sign_in`.
    pub action: String,
    /// The id of what it was done to; empty where that is nothing with an id.
    pub target: String,
    /// For people.
    pub detail: String,
    /// The address it came from, where that was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}
