//! Nodes: single machines.

use crate::{Links, Problem};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A machine of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// `nod_…`
    pub id: String,
    /// Always `node`.
    pub object: String,
    /// `cls_…` it belongs to.
    pub cluster_id: String,
    /// `np_…` it belongs to.
    pub node_pool_id: String,
    /// Its name, the same as in `kubectl get nodes`.
    pub name: String,
    /// `pending`, `creating`, `joining`, `ready`, `not_ready`, `deleting` or `lost` (more may come).
    pub state: String,
    /// One sentence on the state, for people.
    pub state_message: String,
    /// Pod CIDR, once it has joined.
    pub pod_cidr: Option<String>,
    /// Its addresses, as it reported them.
    pub addresses: Vec<String>,
    /// Kubelet version, once reported.
    pub kubelet_version: Option<String>,
    /// Operating system, once reported.
    pub os: Option<String>,
    /// CPU architecture, once reported.
    pub arch: Option<String>,
    /// Kernel version, once reported.
    pub kernel: Option<String>,
    /// Whether its link to the platform is connected.
    pub link_connected: bool,
    /// When it last reported to the platform.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_seen_at: Option<OffsetDateTime>,
    /// The last error, kept while the platform retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// `op_…` of the latest operation on it.
    pub operation_id: Option<String>,
    /// When removal was requested.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deletion_requested_at: Option<OffsetDateTime>,
    /// When it was reported.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Version of this representation, for `If-Match`.
    pub etag: String,
    /// The resource's addresses.
    pub links: Links,
}

impl Node {
    /// The states this version knows; a client must accept others too.
    pub const STATES: [&'static str; 7] = ["pending", "creating", "joining", "ready", "not_ready", "deleting", "lost"];
}
