//! What was revoked must not go on: when every API server of a cluster refuses a kubeconfig, or the certificates of a removed node, the
//! cluster's open client connections are cut once. A watch was authenticated and authorized when it began; whoever may, comes again at once.

use std::collections::HashSet;
use std::time::Duration;

use gateway::Gateway;
use migrations::{ChangeKind, Store, StoreError};
use tenant_controlplane::id::{ClusterId, KubeconfigId, NodeId};
use time::OffsetDateTime;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// News may be missed: so often the store is asked.
const SWEEP: Duration = Duration::from_secs(30);
/// And this far back, more than twice the pause. A gateway that has just begun has no older connection.
const BACK: Duration = Duration::from_secs(90);

/// Follows the store until `cancel`.
pub async fn follow(store: Store, gateway: Gateway, cancel: CancellationToken) {
    let mut news = store.changes();
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut done = HashSet::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = sweep.tick() => {}
            change = news.recv() => match change {
                Ok(change) if !is_of_interest(change.kind) => continue,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
        // One look serves all that has come by now.
        while news.try_recv().is_ok() {}
        cut(&store, &gateway, &mut done).await;
    }
}

const fn is_of_interest(kind: ChangeKind) -> bool {
    matches!(kind, ChangeKind::Kubeconfig | ChangeKind::Node | ChangeKind::Resync)
}

/// Who is refused.
#[derive(PartialEq, Eq, Hash)]
enum Refused {
    Kubeconfig(KubeconfigId),
    Node(NodeId),
}

/// Cuts the clients of each cluster in which somebody has been refused since the last look.
async fn cut(store: &Store, gateway: &Gateway, done: &mut HashSet<(ClusterId, Refused)>) {
    let refused = match refused_since(store, OffsetDateTime::now_utc() - BACK).await {
        Ok(refused) => refused,
        Err(error) => return warn!("ask which kubeconfigs and nodes were refused: {error}"),
    };
    let clusters: HashSet<_> = refused.difference(done).map(|(cluster, _)| *cluster).collect();
    clusters.iter().for_each(|cluster| gateway.drop_clients(&cluster.to_string()));
    *done = refused;
}

async fn refused_since(store: &Store, since: OffsetDateTime) -> Result<HashSet<(ClusterId, Refused)>, StoreError> {
    let kubeconfigs = store.kubeconfigs().refused_since(since).await?;
    let kubeconfigs = kubeconfigs.into_iter().map(|row| (row.cluster, Refused::Kubeconfig(row.id)));
    let nodes = store.tombstones().refused_since(since).await?;
    Ok(nodes.into_iter().map(|(cluster, node)| (cluster, Refused::Node(node))).chain(kubeconfigs).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::testing::{World, cut, is_open};

    #[tokio::test]
    async fn clients_are_cut_once_when_a_removed_node_is_refused() {
        let mut world = World::new().await;
        let (node, _link) = world.linked("web").await;
        let mut before = world.client().await;
        tokio::spawn(follow(world.store.clone(), world.gateway.clone(), world.cancel.clone()));
        world.store.tombstones().write(node).await.unwrap();
        world.store.nodes().purge(node).await.unwrap();
        assert!(is_open(&mut before).await, "it is gone by force, and not refused yet");
        world.store.tombstones().mark_refused(node).await.unwrap();
        cut(&mut before).await;
        let mut after = world.client().await;
        let _news = world.linked("other").await;
        assert!(is_open(&mut after).await, "whoever may, comes again");
        world.cancel.cancel();
    }
}
