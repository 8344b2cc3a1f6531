//! A node with what it belongs to.

use migrations::{Cluster, Node, NodePool, Store, StoreError};
use tenant_controlplane::id::NodeId;

use crate::trouble::present;

/// A node with what it belongs to.
pub struct Family {
    /// The node.
    pub node: Node,
    /// Its pool.
    pub pool: NodePool,
    /// Its cluster.
    pub cluster: Cluster,
}

impl Family {
    /// The node and what it belongs to; `None` when any of it is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load(store: &Store, id: NodeId) -> Result<Option<Self>, StoreError> {
        let Some(node) = present(store.nodes().load(id).await)? else { return Ok(None) };
        let Some(pool) = present(store.pools().load(node.pool).await)? else { return Ok(None) };
        let Some(cluster) = present(store.clusters().load(node.cluster).await)? else { return Ok(None) };
        Ok(Some(Self { node, pool, cluster }))
    }

    /// Whether the node is to go, for its own sake or with what it belongs to.
    pub const fn is_leaving(&self) -> bool {
        let asked = self.node.deletion_requested_at.is_some() || self.pool.deletion_requested_at.is_some();
        asked || self.node.removed || self.cluster.deletion_requested_at.is_some()
    }
}
