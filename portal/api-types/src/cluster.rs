//! Clusters: one tenant control plane each.

use crate::{CreateNodePool, Links, Problem};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A cluster: desired and observed state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cluster {
    /// `cls_…`
    pub id: String,
    /// Always `cluster`.
    pub object: String,
    /// `org_…` of the owner.
    pub organization_id: String,
    /// `prj_…` it belongs to; immutable.
    pub project_id: String,
    /// DNS label, unique in the project, never changes.
    pub name: String,
    /// The Kubernetes version, for example `1.36.3`.
    pub version: String,
    /// Pod CIDR; immutable.
    pub pod_cidr: String,
    /// Service CIDR; immutable.
    pub service_cidr: String,
    /// Control plane replicas.
    pub replicas: u8,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `pending`, `provisioning`, `running`, `degraded`, `deleting` or `error` (more may come).
    pub state: String,
    /// One sentence on the state, for people.
    pub state_message: String,
    /// Conditions in the shape Kubernetes uses.
    pub conditions: Vec<Condition>,
    /// API server endpoint, once available: `https://…`.
    pub endpoint: Option<String>,
    /// TLS server name of the API server: use with `endpoint` where DNS does not resolve it.
    pub tls_server_name: String,
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
    /// When it was last updated.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// Version of this representation, for `If-Match`.
    pub etag: String,
    /// The resource's addresses.
    pub links: Links,
}

impl Cluster {
    /// The states this version knows; a client must accept others too.
    pub const STATES: [&'static str; 6] = ["pending", "provisioning", "running", "degraded", "deleting", "error"];
}

/// One condition (Kubernetes API conventions).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Condition {
    /// For example `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// CamelCase word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// The generation it was observed for.
    pub observed_generation: i64,
    /// When `status` last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub last_transition_time: OffsetDateTime,
}

/// Create a cluster. Everything but the name has a default.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCluster {
    /// DNS label of at most 40 characters, unique in the project.
    pub name: String,
    /// One of `GET /api/v1/kubernetes-versions`; optional.
    #[serde(default)]
    pub version: Option<String>,
    /// Pod CIDR; default 10.244.0.0/16. Immutable.
    #[serde(default)]
    pub pod_cidr: Option<String>,
    /// Service CIDR; default 10.96.0.0/16. Immutable.
    #[serde(default)]
    pub service_cidr: Option<String>,
    /// Control plane replicas, 1 to 5; default 1.
    #[serde(default)]
    pub replicas: Option<u8>,
    /// At most 32 labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Node pools to create with the cluster, at most 20: all of it is created, or nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 20)]
    pub node_pools: Vec<CreateNodePool>,
}
