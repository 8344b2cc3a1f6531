//! Why a node is not served. That it was removed is said only on a tombstone, because its machine then resets itself: of a row that is
//! missing nothing is known, and the machine is told to go on.

use migrations::{Store, StoreError, Tombstone};
use node_protocol::{Removal, Unknown};
use tonic::Status;

use super::{Caller, unavailable};

/// What to say to a caller that has no row.
pub async fn absent(store: &Store, caller: Caller) -> Status {
    match removal(store, caller).await {
        Ok(Some(removed)) => removed,
        Ok(None) => unknown(caller),
        Err(error) => unavailable(&error),
    }
}

/// What to say to a node that was removed; `None` without a tombstone of this node in this cluster.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn removal(store: &Store, caller: Caller) -> Result<Option<Status>, StoreError> {
    let tombstone = store.tombstones().get(caller.node).await?;
    Ok(tombstone.filter(|tombstone| tombstone.cluster == caller.cluster).map(|tombstone| removed(&tombstone)))
}

fn removed(tombstone: &Tombstone) -> Status {
    let Tombstone { node, cluster, removed_at, .. } = tombstone;
    let (node_id, cluster_id) = (node.to_string(), cluster.to_string());
    Removal { node_id, cluster_id, removed_at: removed_at.unix_timestamp() }.status()
}

fn unknown(caller: Caller) -> Status {
    tracing::warn!(node = %caller.node, cluster = %caller.cluster, "request from an unknown node: left unchanged");
    Unknown { node_id: caller.node.to_string() }.status()
}
