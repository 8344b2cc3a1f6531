//! Kubeconfigs: files that let kubectl in, each with a certificate of its own that can be revoked alone.

use crate::Links;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// An issued kubeconfig, without the file, which is shown only once, when it is issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Kubeconfig {
    /// `kcf_…`
    pub id: String,
    /// Always `kubeconfig`.
    pub object: String,
    /// `cls_…` it gives access to.
    pub cluster_id: String,
    /// Display name.
    pub name: String,
    /// `file` (more may come).
    pub kind: String,
    /// `view`, `edit` or `admin`.
    pub role: String,
    /// `pending`, `active`, `revoking` (the cluster was not yet seen to refuse it), `revoked` or `expired`.
    #[serde(default)]
    pub state: String,
    /// Whether the cluster accepts it: the state `active`.
    pub active: bool,
    /// When its certificate expires.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// When it was revoked.
    #[serde(with = "time::serde::rfc3339::option")]
    pub revoked_at: Option<OffsetDateTime>,
    /// After revocation: what its holder left in the cluster and should be reviewed, such as bindings of its user.
    #[serde(default)]
    pub left_behind: Option<String>,
    /// Issuer: `usr_…` or `tok_…`.
    pub created_by: String,
    /// When it was issued.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The resource's addresses.
    pub links: Links,
}

impl Kubeconfig {
    /// The states this version knows; a client must accept others too.
    pub const STATES: [&'static str; 5] = ["pending", "active", "revoking", "revoked", "expired"];
}

/// Issue a kubeconfig.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueKubeconfig {
    /// Display name, at most 64 characters; default: the cluster, the role and a random suffix, such as `demo-admin-x7k2p`.
    #[serde(default)]
    pub name: Option<String>,
    /// `file` (the default) is the only supported value.
    #[serde(default)]
    pub kind: Option<String>,
    /// `view`, `edit` or `admin`; default `admin`, or `view` for callers limited to it.
    #[serde(default)]
    pub role: Option<String>,
    /// Lifetime, 60 seconds to 365 days; default 30 days.
    #[serde(default)]
    pub expires_in_seconds: Option<u64>,
    /// How the file addresses the API server: `sni` (the gateway's address and `tls-server-name`), `dns` (the cluster's own name, where the
    /// operator has set up DNS; the default there, else `sni`), or `port` (a dedicated port on the gateway, where the operator allows it).
    #[serde(default)]
    pub endpoint: Option<String>,
}

/// A new kubeconfig with its file, which is shown only once.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct IssuedKubeconfig {
    /// The kubeconfig as listed.
    #[serde(flatten)]
    pub issued: Kubeconfig,
    /// The file's text (YAML). It holds a private key.
    pub kubeconfig: String,
}

/// Never shows the file.
impl std::fmt::Debug for IssuedKubeconfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedKubeconfig").field("issued", &self.issued).finish_non_exhaustive()
    }
}
