//! Clusters, and where they are reached.

use tenant_controlplane::id::{ClusterId, HostId, OperationId, OrganizationId, ProjectId};
use tenant_controlplane::name::ClusterName;
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::status::{ClusterState, Condition, Problem};
use time::OffsetDateTime;

use super::Actor;
use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// One tenant control plane: its desired state (written by the portal) and its observed state (written by the provisioner).
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// The project it is in.
    pub project: ProjectId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Unique in the project.
    pub name: ClusterName,
    /// The desired state.
    pub spec: ClusterSpec,
    /// Counts changes of the spec, from 1.
    pub generation: i64,
    /// The generation that has been made so.
    pub observed_generation: i64,
    /// The word for how it is.
    pub state: ClusterState,
    /// The same in a sentence.
    pub state_message: String,
    /// The same in detail.
    pub conditions: Vec<Condition>,
    /// Where the gateway finds its API server, `ip:port`.
    pub endpoint: Option<String>,
    /// What is wrong, if something is.
    pub problem: Option<Problem>,
    /// The latest operation on it.
    pub operation: Option<OperationId>,
    /// Since when it is to go.
    pub deletion_requested_at: Option<OffsetDateTime>,
    /// Whether its deletion is forced: an admin said that nothing is to be waited for that may never come.
    pub forced: bool,
    /// When it was requested.
    pub created_at: OffsetDateTime,
    /// When anything of this row last changed.
    pub updated_at: OffsetDateTime,
    /// The host it is placed on.
    pub host: HostId,
    /// The user and group its control plane runs as on the host; no other cluster's, and it stays the same.
    pub user_id: u32,
}

impl Cluster {
    /// What stands for it in host names: the 26 characters of its id.
    pub fn label(&self) -> String {
        self.id.suffix()
    }
}

/// A cluster to be.
#[derive(Clone, Debug)]
pub struct NewCluster {
    /// The project it will be in.
    pub project: ProjectId,
    /// Whose it will be.
    pub organization: OrganizationId,
    /// Unique in the project.
    pub name: ClusterName,
    /// The desired state.
    pub spec: ClusterSpec,
    /// Who requests it.
    pub actor: Actor,
}

/// What the provisioner saw; replaces what it saw before.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterReport {
    /// The generation that has been made so.
    pub observed_generation: i64,
    /// The word for how it is.
    pub state: ClusterState,
    /// The same in a sentence.
    pub state_message: String,
    /// The same in detail.
    pub conditions: Vec<Condition>,
    /// Where the gateway finds its API server, `ip:port`.
    pub endpoint: Option<String>,
    /// What is wrong, if something is.
    pub problem: Option<Problem>,
}

/// What the gateway needs to know of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Where its API server is, `ip:port`; `None` while there is none.
    pub endpoint: Option<String>,
    /// The CAs its nodes' link certificates are checked with, PEM; `None` before they are made.
    pub link_trust_pem: Option<String>,
}

impl TryFrom<table::cluster::Model> for Cluster {
    type Error = StoreError;

    fn try_from(model: table::cluster::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: ClusterId::from_uuid(model.id),
            project: ProjectId::from_uuid(model.project),
            organization: OrganizationId::from_uuid(model.organization),
            name: codec::word("cluster name", &model.name)?,
            spec: codec::from_json("cluster spec", &model.spec)?,
            generation: model.generation,
            observed_generation: model.observed_generation,
            state: codec::word("cluster state", &model.state)?,
            state_message: model.state_message,
            conditions: codec::from_json("cluster conditions", &model.conditions)?,
            endpoint: model.endpoint,
            problem: codec::maybe_from_json("cluster problem", model.problem.as_deref())?,
            operation: model.operation.map(OperationId::from_uuid),
            deletion_requested_at: codec::maybe_time("cluster time", model.deletion_requested_at)?,
            forced: model.forced,
            created_at: codec::time("cluster time", model.created_at)?,
            updated_at: codec::time("cluster time", model.updated_at)?,
            host: HostId::from_uuid(model.host),
            user_id: codec::count("cluster user id", model.user_id)?,
        })
    }
}
