//! What is known of removed nodes and deleted clusters.

use tenant_controlplane::id::{ClusterId, NodeId};
use time::OffsetDateTime;

use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// That a node was removed, in writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The node.
    pub node: NodeId,
    /// The cluster it was in.
    pub cluster: ClusterId,
    /// Its name in Kubernetes.
    pub name: String,
    /// Since when.
    pub removed_at: OffsetDateTime,
    /// When every API server of its cluster was seen to refuse its certificates.
    pub refused_at: Option<OffsetDateTime>,
}

/// What is left of a deleted cluster whose nodes may not know yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedCluster {
    /// Which.
    pub cluster: ClusterId,
    /// The CAs its nodes' link certificates are checked with, PEM.
    pub link_trust_pem: String,
}

impl TryFrom<table::node_tombstone::Model> for Tombstone {
    type Error = StoreError;

    fn try_from(model: table::node_tombstone::Model) -> Result<Self, StoreError> {
        Ok(Self {
            node: NodeId::from_uuid(model.node),
            cluster: ClusterId::from_uuid(model.cluster),
            name: model.name,
            removed_at: codec::time("tombstone time", model.removed_at)?,
            refused_at: codec::maybe_time("tombstone time", model.refused_at)?,
        })
    }
}
