//! The audit log: who did what.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// One entry of an organization's audit log. Entries are immutable and deleted after 365 days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// `aud_…`
    pub id: String,
    /// Always `audit_entry`.
    pub object: String,
    /// `org_…` it concerns.
    pub organization_id: Option<String>,
    /// Actor: `usr_…`, `tok_…`, `nod_…`, `system` for the platform and its operator, `anonymous` for a caller without a valid
    /// credential.
    pub actor: String,
    /// The e-mail address or the token's name, where the actor still exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_name: Option<String>,
    /// Action: a noun and a verb, such as `cluster.create` or `user.sign_in`.
    pub action: String,
    /// ID of the target; empty where the target has none.
    pub target: String,
    /// For people.
    pub detail: String,
    /// Source IP address, where recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}
