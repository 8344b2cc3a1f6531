//! Reports to the directory which nodes are linked, one call at a time.
//!
//! Only *that* something changed is queued; how things stand is read when the call is made. So a link that came and went
//! while the directory was slow ends in one true call, never in two that outrun each other.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};
use tracing::warn;

use crate::{directory::Directory, tunnel::registry::Registry};

/// Time for one call.
const PATIENCE: Duration = Duration::from_secs(5);

type NodeKey = (String, String);

/// Links that changed and were not reported yet.
pub(crate) struct Notifier {
    directory: Arc<dyn Directory>,
    due: Mutex<BTreeSet<NodeKey>>,
    wake: Notify,
}

impl Notifier {
    /// Nothing to report yet.
    pub(crate) fn new(directory: Arc<dyn Directory>) -> Self {
        Self { directory, due: Mutex::default(), wake: Notify::new() }
    }

    /// Notes that this node's link came or went.
    pub(crate) fn changed(&self, cluster_id: &str, node_id: &str) {
        let key = (cluster_id.to_owned(), node_id.to_owned());
        self.due.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        self.wake.notify_one();
    }

    /// Reports until dropped.
    pub(crate) async fn run(&self, registry: &Registry) {
        loop {
            self.flush(registry).await;
            self.wake.notified().await;
        }
    }

    /// Reports what is due now. A call that takes too long is given up.
    pub(crate) async fn flush(&self, registry: &Registry) {
        while let Some((cluster, node)) = self.next() {
            let connected = registry.is_linked(&cluster, &node);
            let call = self.directory.link_changed(&cluster, &node, connected);
            if timeout(PATIENCE, call).await.is_err() {
                warn!(cluster, node, connected, "directory update timed out");
            }
        }
    }

    fn next(&self) -> Option<NodeKey> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).pop_first()
    }
}
