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
    /// Its name, the same in `kubectl get nodes`.
    pub name: String,
    /// `pending`, `creating`, `joining`, `ready`, `not_ready`, `deleting` or `lost` (more may come).
    pub state: String,
    /// One sentence on the state, for people.
    pub state_message: String,
    /// Range of its pods' addresses, once it has joined.
    pub pod_cidr: Option<String>,
    /// Its addresses, as it told them.
    pub addresses: Vec<String>,
    /// Version of its kubelet, once known.
    pub kubelet_version: Option<String>,
    /// Its operating system, once known.
    pub os: Option<String>,
    /// Its processor architecture, once known.
    pub arch: Option<String>,
    /// Its kernel, once known.
    pub kernel: Option<String>,
    /// Whether its link to the platform stands now.
    pub link_connected: bool,
    /// When the platform last heard from it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_seen_at: Option<OffsetDateTime>,
    /// The last error, kept while retries go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// `op_…` of the newest operation on it.
    pub operation_id: Option<String>,
    /// When removal was asked for.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deletion_requested_at: Option<OffsetDateTime>,
    /// When it was made known.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Version of this representation, for `If-Match`.
    pub etag: String,
    /// Where it is found.
    pub links: Links,
}

impl Node {
    /// The states this version knows; a client must accept others too.
    pub const STATES: [&'static str; 7] = ["pending", "creating", "joining", "ready", "not_ready", "deleting", "lost"];
}
