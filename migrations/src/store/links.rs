//! Nodes' links: which gateway each is at.

use sea_orm::EntityTrait;
use tenant_controlplane::id::NodeId;
use uuid::Uuid;

use super::deletion;
use super::nodes::{Nodes, wake};
use crate::codec;
use crate::entity::node;
use crate::error::StoreError;

/// For gateways, which serve all organizations.
impl Nodes<'_> {
    /// Notes that a node's link came up at a gateway, wherever one was before, and makes the node due if it had none. A node that is gone
    /// is fine.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn set_link(self, id: NodeId, gateway: Uuid) -> Result<(), StoreError> {
        let changed = self.change(id, |row| {
            row.link_connected = true;
            row.link_gateway = Some(gateway);
            row.last_seen_at = Some(codec::millis(codec::now()));
            Ok(())
        });
        match changed.await {
            Err(StoreError::NotFound { .. }) => Ok(()),
            result => result,
        }
    }

    /// Notes that a node's link at a gateway is down, and makes the node due; false when its link is at another gateway by now, or was
    /// down, or the node is gone: then nothing changes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn clear_link(self, id: NodeId, gateway: Option<Uuid>) -> Result<bool, StoreError> {
        let mut tx = self.0.begin().await?;
        let Some(mut row) = tx.lock::<node::Entity>(id.uuid()).await? else { return Ok(false) };
        if !row.link_connected || row.link_gateway != gateway {
            return Ok(false);
        }
        let now = codec::millis(codec::now());
        (row.link_connected, row.link_gateway, row.last_seen_at, row.updated_at) = (false, None, Some(now), now);
        tx.publish(deletion::node_change(&row));
        wake(&mut tx, &row).await?;
        tx.save(row).await?;
        tx.commit().await.map(|()| true)
    }

    /// The gateway that a node's link is at, if it has one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn link_gateway(self, id: NodeId) -> Result<Option<Uuid>, StoreError> {
        Ok(node::Entity::find_by_id(id.uuid()).one(self.0.db()).await?.and_then(|row| row.link_gateway))
    }
}
