//! What was revoked must not go on: when every API server of a cluster refuses a kubeconfig, the cluster's open client connections are cut
//! once. A watch was authenticated when it began; whoever may, comes again at once.

use std::collections::HashSet;
use std::time::Duration;

use gateway::Gateway;
use migrations::{ChangeKind, Store};
use tenant_controlplane::id::KubeconfigId;
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
                Ok(change) if !matches!(change.kind, ChangeKind::Kubeconfig | ChangeKind::Resync) => continue,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
        cut(&store, &gateway, &mut done).await;
    }
}

/// Cuts the clients of each cluster in which a kubeconfig has been refused since the last look.
async fn cut(store: &Store, gateway: &Gateway, done: &mut HashSet<KubeconfigId>) {
    let refused = match store.kubeconfigs().refused_since(OffsetDateTime::now_utc() - BACK).await {
        Ok(refused) => refused,
        Err(error) => return warn!("ask which kubeconfigs were refused: {error}"),
    };
    let clusters: HashSet<_> =
        refused.iter().filter(|row| !done.contains(&row.id)).map(|row| row.cluster.to_string()).collect();
    clusters.iter().for_each(|cluster| gateway.drop_clients(cluster));
    *done = refused.iter().map(|row| row.id).collect();
}
