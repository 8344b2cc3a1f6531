//! Nodes: single machines, and how they enroll.

use std::collections::HashSet;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use tenant_controlplane::id::{ClusterId, NodeId, NodePoolId, OperationId, OrganizationId};
use tenant_controlplane::name::NodeName;
use tenant_controlplane::status::{NodeState, Problem};
use time::OffsetDateTime;

use super::cluster::Cluster;
use super::pool::NodePool;
use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// What a machine says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeInfo {
    /// Version of its kubelet, empty before it is known.
    pub kubelet_version: String,
    /// Operating system, for people.
    pub os: String,
    /// `amd64` or `arm64`.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// Its own addresses, the one to be reached at first.
    pub addresses: Vec<String>,
}

/// One machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its id; also the idempotency token at its provider.
    pub id: NodeId,
    /// The cluster it is in.
    pub cluster: ClusterId,
    /// The pool it is in.
    pub pool: NodePoolId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Its name in Kubernetes, unique in the cluster.
    pub name: NodeName,
    /// The word for how it is.
    pub state: NodeState,
    /// The same in a sentence.
    pub state_message: String,
    /// Its pods' addresses: a /24 of the cluster's range that no other node has.
    pub pod_cidr: Ipv4Net,
    /// What tells the machine from others; `None` before it enrolled.
    pub machine_fingerprint: Option<String>,
    /// What it says of itself.
    pub facts: NodeInfo,
    /// Whether its link to the gateway is up.
    pub link_connected: bool,
    /// When it last reported.
    pub last_seen_at: Option<OffsetDateTime>,
    /// Since when it is to go.
    pub deletion_requested_at: Option<OffsetDateTime>,
    /// Whether its deletion is forced: an admin said that nothing is to be waited for that may never come.
    pub forced: bool,
    /// Until when its pods may move away once it is to go; in the past when they have, or need not. `None` before that was decided.
    pub drain_ends_at: Option<OffsetDateTime>,
    /// The configuration its agent was last given.
    pub config: ConfigVersion,
    /// The last order to register with Kubernetes anew.
    pub registration: Registration,
    /// It is gone for good: whatever still runs there is not let in again.
    pub removed: bool,
    /// What is wrong, if something is.
    pub problem: Option<Problem>,
    /// The latest operation on it.
    pub operation: Option<OperationId>,
    /// When its row was made.
    pub created_at: OffsetDateTime,
    /// When anything of this row last changed, heartbeats excepted.
    pub updated_at: OffsetDateTime,
}

/// Which configuration a node's agent was last given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigVersion {
    /// Rises with every other content, and never falls.
    pub generation: u64,
    /// SHA-256 of the content, hex; empty before there was any.
    pub digest: String,
}

/// The order to a node to register with Kubernetes anew, because its Node object was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// How many orders there were.
    pub number: u64,
    /// When the last one was given.
    pub ordered_at: Option<OffsetDateTime>,
}

/// Which clusters there are, and which nodes that were not removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Clusters, those on their way out among them.
    pub clusters: HashSet<ClusterId>,
    /// Nodes, those on their way out among them until their machine has left.
    pub nodes: HashSet<NodeId>,
}

/// What the provisioner saw; replaces what it saw before, `None` keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeReport {
    /// The word for how it is.
    pub state: NodeState,
    /// The same in a sentence.
    pub state_message: String,
    /// What is wrong, if something is.
    pub problem: Option<Problem>,
    /// What the machine says of itself.
    pub facts: Option<NodeInfo>,
    /// When it last reported.
    pub last_seen_at: Option<OffsetDateTime>,
}

/// What a machine shows to join.
#[derive(Clone)]
pub struct Enrollment<'a> {
    /// The join token.
    pub token_secret: &'a str,
    /// What tells the machine from others.
    pub fingerprint: &'a str,
    /// Its host name, the second choice for its node name.
    pub hostname: &'a str,
    /// The first choice; empty for none.
    pub requested_name: &'a str,
    /// What it says of itself.
    pub facts: NodeInfo,
}

impl std::fmt::Debug for Enrollment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrollment").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

/// A machine that may join, with everything it belongs to.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Its row.
    pub node: Node,
    /// Its cluster.
    pub cluster: Cluster,
    /// Its pool.
    pub pool: NodePool,
}

/// What the gateway needs to know of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRoute {
    /// Its name in Kubernetes.
    pub name: NodeName,
    /// Its pods' addresses.
    pub pod_cidr: Ipv4Net,
}

impl TryFrom<table::node::Model> for Node {
    type Error = StoreError;

    fn try_from(model: table::node::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: NodeId::from_uuid(model.id),
            cluster: ClusterId::from_uuid(model.cluster),
            pool: NodePoolId::from_uuid(model.pool),
            organization: OrganizationId::from_uuid(model.organization),
            name: codec::word("node name", &model.name)?,
            state: codec::word("node state", &model.state)?,
            state_message: model.state_message,
            pod_cidr: codec::word("node pod range", &model.pod_cidr)?,
            machine_fingerprint: model.machine_fingerprint,
            facts: codec::from_json("node facts", &model.facts)?,
            link_connected: model.link_connected,
            last_seen_at: codec::maybe_time("node time", model.last_seen_at)?,
            deletion_requested_at: codec::maybe_time("node time", model.deletion_requested_at)?,
            forced: model.forced,
            drain_ends_at: codec::maybe_time("node time", model.drain_ends_at)?,
            config: ConfigVersion {
                generation: codec::number("node configuration", model.config_generation)?,
                digest: model.config_digest,
            },
            registration: Registration {
                number: codec::number("node registration", model.registration)?,
                ordered_at: codec::maybe_time("node time", model.registration_ordered_at)?,
            },
            removed: model.removed,
            problem: codec::maybe_from_json("node problem", model.problem.as_deref())?,
            operation: model.operation.map(OperationId::from_uuid),
            created_at: codec::time("node time", model.created_at)?,
            updated_at: codec::time("node time", model.updated_at)?,
        })
    }
}
