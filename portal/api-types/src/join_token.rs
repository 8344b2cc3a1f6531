//! Join tokens: what a machine shows once to become a node.

use crate::Links;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A join token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinToken {
    /// `jtk_…`
    pub id: String,
    /// Always `join_token`.
    pub object: String,
    /// `cls_…` that machines join.
    pub cluster_id: String,
    /// `np_…` that machines join.
    pub node_pool_id: String,
    /// When it expires.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// Maximum uses.
    pub max_uses: u32,
    /// Number of uses.
    pub uses: u32,
    /// When it was revoked. Nodes that already joined are not affected.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    /// Creation time.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The resource's addresses.
    pub links: Links,
}

/// Create a join token.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateJoinToken {
    /// `np_…` or name of a `byo` pool. When missing, the cluster's only `byo` pool is taken; when it has none, one
    /// named `byo` is made.
    #[serde(default)]
    pub node_pool: Option<String>,
    /// Lifetime, 60 seconds to 30 days; default 1 hour.
    #[serde(default)]
    pub expires_in_seconds: Option<u64>,
    /// Maximum uses, 1 to 100; default 1.
    #[serde(default)]
    pub max_uses: Option<u32>,
}

/// A new join token with its secret and ready-to-run commands, which are shown only once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct CreatedJoinToken {
    /// The join token as listed.
    #[serde(flatten)]
    pub join_token: JoinToken,
    /// The secret (`pilothouse_join_…`).
    pub token: String,
    /// Ways to use it.
    pub commands: JoinCommands,
}

/// Ready-to-run commands. Each contains the secret.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct JoinCommands {
    /// Shell command to run as root on the machine.
    pub shell: String,
    /// User-data for cloud-init (`#cloud-config`).
    pub cloud_init: String,
}

/// Never shows the secret.
impl std::fmt::Debug for CreatedJoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedJoinToken").field("join_token", &self.join_token).finish_non_exhaustive()
    }
}

/// Never shows the commands: they hold the secret.
impl std::fmt::Debug for JoinCommands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinCommands").finish_non_exhaustive()
    }
}
