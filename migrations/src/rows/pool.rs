//! Node pools: named groups of machines.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr};
use tenant_controlplane::id::{ClusterId, NodePoolId, OperationId, OrganizationId};
use tenant_controlplane::name::PoolName;
use tenant_controlplane::status::{PoolState, Problem};
use tenant_controlplane::version::KubernetesVersion;
use time::OffsetDateTime;

use super::Actor;
use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// Where a pool's machines come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, Display, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum PoolKind {
    /// Brought by the user; joins with a token.
    Byo,
    /// Machine containers on this machine.
    Local,
}

impl PoolKind {
    /// The word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The pool that a cluster begins with.
#[derive(Clone, Debug)]
pub struct FirstPool {
    /// Its name.
    pub name: PoolName,
    /// Where its machines come from.
    pub kind: PoolKind,
    /// Desired number of machines; 0 for [`PoolKind::Byo`].
    pub count: u32,
    /// The Kubernetes version of its nodes; `None`: the cluster's.
    pub version: Option<KubernetesVersion>,
}

/// A named group of machines of one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct NodePool {
    /// Its id.
    pub id: NodePoolId,
    /// The cluster its nodes join.
    pub cluster: ClusterId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Unique in the cluster.
    pub name: PoolName,
    /// Where its machines come from.
    pub kind: PoolKind,
    /// Desired number of machines; 0 for [`PoolKind::Byo`].
    pub count: u32,
    /// The Kubernetes version of its nodes; `None`: the cluster's.
    pub version: Option<KubernetesVersion>,
    /// Counts changes of the spec, from 1.
    pub generation: i64,
    /// The generation that has been made so.
    pub observed_generation: i64,
    /// The word for how it is.
    pub state: PoolState,
    /// The same in a sentence.
    pub state_message: String,
    /// What is wrong, if something is.
    pub problem: Option<Problem>,
    /// The latest operation on it.
    pub operation: Option<OperationId>,
    /// Since when it is to go.
    pub deletion_requested_at: Option<OffsetDateTime>,
    /// When it was requested.
    pub created_at: OffsetDateTime,
    /// When anything of this row last changed.
    pub updated_at: OffsetDateTime,
}

/// A pool to be.
#[derive(Clone, Debug)]
pub struct NewPool {
    /// The cluster its nodes will join.
    pub cluster: ClusterId,
    /// Whose the cluster is.
    pub organization: OrganizationId,
    /// Unique in the cluster.
    pub name: PoolName,
    /// Where its machines will come from.
    pub kind: PoolKind,
    /// Desired number of machines.
    pub count: u32,
    /// The Kubernetes version of its nodes; `None`: the cluster's.
    pub version: Option<KubernetesVersion>,
    /// Who requests it.
    pub actor: Actor,
}

/// What the provisioner saw; replaces what it saw before.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolReport {
    /// The generation that has been made so.
    pub observed_generation: i64,
    /// The word for how it is.
    pub state: PoolState,
    /// The same in a sentence.
    pub state_message: String,
    /// What is wrong, if something is.
    pub problem: Option<Problem>,
}

impl TryFrom<table::node_pool::Model> for NodePool {
    type Error = StoreError;

    fn try_from(model: table::node_pool::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: NodePoolId::from_uuid(model.id),
            cluster: ClusterId::from_uuid(model.cluster),
            organization: OrganizationId::from_uuid(model.organization),
            name: codec::word("node pool name", &model.name)?,
            kind: codec::word("node pool kind", &model.kind)?,
            count: codec::count("node pool count", model.count)?,
            version: model.version.as_deref().map(|text| codec::word("node pool version", text)).transpose()?,
            generation: model.generation,
            observed_generation: model.observed_generation,
            state: codec::word("node pool state", &model.state)?,
            state_message: model.state_message,
            problem: codec::maybe_from_json("node pool problem", model.problem.as_deref())?,
            operation: model.operation.map(OperationId::from_uuid),
            deletion_requested_at: codec::maybe_time("node pool time", model.deletion_requested_at)?,
            created_at: codec::time("node pool time", model.created_at)?,
            updated_at: codec::time("node pool time", model.updated_at)?,
        })
    }
}
