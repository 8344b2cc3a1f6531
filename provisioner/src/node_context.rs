//! A node with its pool and cluster.

use migrations::{Cluster, Node, NodePool, Store, StoreError};
use tenant_controlplane::id::NodeId;
use tenant_controlplane::version::KubernetesVersion;

use crate::error::found_or_none;

/// A node with its pool and cluster.
pub struct NodeContext {
    /// The node.
    pub node: Node,
    /// Its pool.
    pub pool: NodePool,
    /// Its cluster.
    pub cluster: Cluster,
}

impl NodeContext {
    /// The node and what it belongs to; `None` when any of it is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load(store: &Store, id: NodeId) -> Result<Option<Self>, StoreError> {
        let Some(node) = found_or_none(store.nodes().load(id).await)? else { return Ok(None) };
        Self::of(store, node).await
    }

    /// The same for a node whose row was read already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn of(store: &Store, node: Node) -> Result<Option<Self>, StoreError> {
        let Some(pool) = found_or_none(store.pools().load(node.pool).await)? else { return Ok(None) };
        let Some(cluster) = found_or_none(store.clusters().load(node.cluster).await)? else { return Ok(None) };
        Ok(Some(Self { node, pool, cluster }))
    }

    /// The Kubernetes version of the node: its pool's, or else its cluster's.
    pub fn version(&self) -> KubernetesVersion {
        self.pool.version.unwrap_or(self.cluster.spec.version)
    }

    /// Whether the node is to go, for its own sake or with what it belongs to.
    pub const fn is_deleting(&self) -> bool {
        let asked = self.node.deletion_requested_at.is_some() || self.pool.deletion_requested_at.is_some();
        asked || self.node.removed || self.cluster.deletion_requested_at.is_some()
    }
}
