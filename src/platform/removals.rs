//! What was removed must not go on: open connections of a removed node or a deleted cluster are cut.
//!
//! News of the store make it quick. They may be missed, so what is open is also compared with the store each minute, and at once after
//! news that were lost or could not be followed up.

use std::time::Duration;

use gateway::Gateway;
use migrations::{Change, ChangeKind, Standing, Store, StoreError};
use tenant_controlplane::id::{ClusterId, NodeId};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Between two comparisons.
const EVERY: Duration = Duration::from_secs(60);
/// The same while the store does not answer.
const AGAIN: Duration = Duration::from_secs(5);

/// Cuts what was removed, until `cancel`.
pub async fn follow(store: Store, gateway: Gateway, cancel: CancellationToken) {
    let mut news = store.changes();
    let mut due = Instant::now();
    loop {
        let seen = tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep_until(due) => compare(&store, &gateway).await,
            change = news.recv() => match change {
                Ok(Change { kind: ChangeKind::Resync, .. }) | Err(RecvError::Lagged(_)) => compare(&store, &gateway).await,
                Ok(change) => consider(&store, &gateway, change).await.map(|()| Seen::News),
                Err(RecvError::Closed) => return,
            },
        };
        due = match seen {
            Ok(Seen::All) => Instant::now() + EVERY,
            Ok(Seen::News) => continue,
            Err(error) => {
                warn!("look for what was removed: {error}");
                Instant::now() + AGAIN
            }
        };
    }
}

/// How much was looked at.
enum Seen {
    News,
    All,
}

/// Compares everything that has connections with what there is. What is open is listed first, so that a node which comes meanwhile is
/// not taken for one that went.
async fn compare(store: &Store, gateway: &Gateway) -> Result<Seen, StoreError> {
    let known = gateway.known();
    if known.is_empty() {
        return Ok(Seen::All);
    }
    let standing = store.nodes().standing().await?;
    for (cluster, nodes) in known {
        if !has_cluster(&standing, &cluster) {
            gateway.drop_cluster(&cluster);
            continue;
        }
        nodes.iter().filter(|node| !has_node(&standing, node)).for_each(|node| gateway.drop_node(&cluster, node));
    }
    Ok(Seen::All)
}

fn has_cluster(standing: &Standing, id: &str) -> bool {
    id.parse::<ClusterId>().is_ok_and(|id| standing.clusters.contains(&id))
}

fn has_node(standing: &Standing, id: &str) -> bool {
    id.parse::<NodeId>().is_ok_and(|id| standing.nodes.contains(&id))
}

/// An error is no answer: only what is known to be gone is cut off, and the comparison follows.
async fn consider(store: &Store, gateway: &Gateway, change: Change) -> Result<(), StoreError> {
    match (change.kind, change.cluster) {
        (ChangeKind::Cluster, _) => {
            let id = ClusterId::from_uuid(change.id);
            match store.clusters().load(id).await {
                Err(StoreError::NotFound { .. }) => gateway.drop_cluster(&id.to_string()),
                other => drop(other?),
            }
        }
        (ChangeKind::Node, Some(cluster)) => {
            let id = NodeId::from_uuid(change.id);
            if store.nodes().route(cluster, id).await?.is_none() {
                gateway.drop_node(&cluster.to_string(), &id.to_string());
            }
        }
        _ => {}
    }
    Ok(())
}
