//! Node pools: named groups of machines.

use crate::{Links, Problem};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A node pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodePool {
    /// `np_…`
    pub id: String,
    /// Always `node_pool`.
    pub object: String,
    /// `cls_…` it belongs to.
    pub cluster_id: String,
    /// DNS label, unique in the cluster.
    pub name: String,
    /// `byo` (bring your own machines) or `local` (containers on the platform host).
    pub kind: String,
    /// Desired number of machines; always 0 for `byo`.
    pub count: u32,
    /// Kubernetes version of its nodes, where it has one of its own; absent: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `pending`, `scaling`, `ready`, `degraded`, `deleting` or `error` (more may come).
    pub state: String,
    /// One sentence on the state, for people.
    pub state_message: String,
    /// The last error, kept while the platform retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// `op_…` of the latest operation on it.
    pub operation_id: Option<String>,
    /// Counts changes of the specification.
    pub generation: i64,
    /// The generation that the status describes.
    pub observed_generation: i64,
    /// When deletion was requested.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deletion_requested_at: Option<OffsetDateTime>,
    /// Creation time.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Version of this representation, for `If-Match`.
    pub etag: String,
    /// The resource's addresses.
    pub links: Links,
}

impl NodePool {
    /// The states this version knows; a client must accept others too.
    pub const STATES: [&'static str; 6] = ["pending", "scaling", "ready", "degraded", "deleting", "error"];
}

/// Create a node pool.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateNodePool {
    /// DNS label of at most 40 characters, unique in the cluster.
    pub name: String,
    /// `byo` or `local`.
    pub kind: String,
    /// Number of machines, 0 to 20; for `local` only, default 1.
    #[serde(default)]
    pub count: Option<u32>,
    /// Kubernetes version of its nodes, one that is on offer: never newer than the cluster's, and at most three minor versions older. Default: the
    /// cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Change a node pool (JSON merge patch).
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchNodePool {
    /// Number of machines, 0 to 20; for `local` only.
    #[serde(default)]
    pub count: Option<u32>,
}
