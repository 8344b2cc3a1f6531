//! What was removed must not go on: open connections of a removed node or a deleted cluster are cut when the store says so.

use gateway::Gateway;
use migrations::{Change, ChangeKind, Store, StoreError};
use tenant_controlplane::id::{ClusterId, NodeId};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Follows the store's news until `cancel`. News that was missed costs nothing but time: new connections are checked anyway.
pub async fn follow(store: Store, gateway: Gateway, cancel: CancellationToken) {
    let mut news = store.changes();
    loop {
        let change = tokio::select! {
            () = cancel.cancelled() => return,
            change = news.recv() => change,
        };
        match change {
            Ok(change) => consider(&store, &gateway, change).await,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn consider(store: &Store, gateway: &Gateway, change: Change) {
    match (change.kind, change.cluster) {
        (ChangeKind::Cluster, _) => {
            let id = ClusterId::from_uuid(change.id);
            if matches!(store.clusters().load(id).await, Err(StoreError::NotFound { .. })) {
                gateway.drop_cluster(&id.to_string());
            }
        }
        (ChangeKind::Node, Some(cluster)) => {
            let id = NodeId::from_uuid(change.id);
            // An error is no answer: only a node that is known to be gone is cut off.
            if matches!(store.nodes().route(cluster, id).await, Ok(None)) {
                gateway.drop_node(&cluster.to_string(), &id.to_string());
            }
        }
        _ => {}
    }
}
