//! What was removed must not go on: open connections of a removed node or a deleted cluster are cut.
//!
//! News of the store make it quick. They may be missed, so what is open is also compared with the store each minute, and at once after
//! news that were lost or could not be followed up.

use std::time::Duration;

use gateway::Gateway;
use migrations::{Change, ChangeKind, Standing, Store, StoreError};
use tenant_controlplane::id::{ClusterId, NodeId};
use tokio::sync::broadcast::Receiver;
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
    let news = store.changes();
    compared(store, gateway, (news, EVERY), cancel).await;
}

/// The same by these news, and by a comparison once in `every`.
async fn compared(
    store: Store,
    gateway: Gateway,
    (mut news, every): (Receiver<Change>, Duration),
    cancel: CancellationToken,
) {
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
            Ok(Seen::All) => Instant::now() + every,
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

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast;
    use uuid::Uuid;

    use super::*;
    use crate::platform::testing::{World, cut, is_open};

    const NEVER: Duration = Duration::from_secs(86_400);

    const fn change(kind: ChangeKind) -> Change {
        Change { kind, id: Uuid::nil(), cluster: None, organization: None }
    }

    #[tokio::test]
    async fn a_link_is_cut_though_no_news_of_its_removal_came() {
        let mut world = World::new().await;
        let (sender, news) = broadcast::channel(1);
        let (first, mut first_link) = world.linked("first").await;
        let (resynced, mut resynced_link) = world.linked("resynced").await;
        let (lagged, mut lagged_link) = world.linked("lagged").await;
        let (missed, mut missed_link) = world.linked("missed").await;
        let (_, mut staying) = world.linked("staying").await;
        let follow = |news, every| {
            tokio::spawn(compared(world.store.clone(), world.gateway.clone(), (news, every), world.cancel.clone()))
        };
        world.other.nodes().purge(first).await.unwrap();
        follow(news, NEVER);
        cut(&mut first_link).await;

        world.other.nodes().purge(resynced).await.unwrap();
        assert!(is_open(&mut resynced_link).await, "nobody told");
        sender.send(change(ChangeKind::Resync)).unwrap();
        cut(&mut resynced_link).await;

        world.other.nodes().purge(lagged).await.unwrap();
        assert!(is_open(&mut lagged_link).await, "nobody told");
        for _ in 0..2 {
            sender.send(change(ChangeKind::Project)).unwrap();
        }
        cut(&mut lagged_link).await;

        follow(sender.subscribe(), Duration::from_millis(10));
        assert!(is_open(&mut missed_link).await);
        world.other.nodes().purge(missed).await.unwrap();
        cut(&mut missed_link).await;

        assert!(is_open(&mut staying).await);
        world.other.clusters().purge(world.cluster.id).await.unwrap();
        cut(&mut staying).await;
        world.cancel.cancel();
    }
}
