//! What one node may ask of the platform at a time, whatever it does with its streams: root on a joined machine is a tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tenant_controlplane::id::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Parts sent to a node at a time; an agent gets three at once. More wait.
const FETCHES: usize = 4;
/// Reports that may come at once.
const REPORTS: u32 = 10;
/// After them, one in this time.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A node that asked for nothing in this time is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The bounds of all nodes.
#[derive(Default)]
pub struct Bounds {
    nodes: Mutex<HashMap<NodeId, Node>>,
}

struct Node {
    fetches: Arc<Semaphore>,
    watch: CancellationToken,
    reports: u32,
    filled: Instant,
    used: Instant,
}

impl Node {
    fn new(now: Instant) -> Self {
        let (fetches, watch) = (Arc::new(Semaphore::new(FETCHES)), CancellationToken::new());
        Self { fetches, watch, reports: REPORTS, filled: now, used: now }
    }
}

impl Bounds {
    /// Waits for one of the node's places for a part.
    pub async fn fetch(&self, node: NodeId) -> Option<OwnedSemaphorePermit> {
        let fetches = self.with(node, Instant::now(), |node| node.fetches.clone());
        fetches.acquire_owned().await.ok()
    }

    /// Ends the node's watch before this one, whose connection may be long dead. The token is cancelled by the next.
    pub fn watch(&self, node: NodeId) -> CancellationToken {
        self.with(node, Instant::now(), |node| {
            node.watch.cancel();
            node.watch = CancellationToken::new();
            node.watch.clone()
        })
    }

    /// Whether the node may report `now`.
    pub fn report(&self, node: NodeId, now: Instant) -> bool {
        self.with(node, now, |node| {
            let earned = now.duration_since(node.filled).as_secs() / REPORT_EVERY.as_secs();
            if earned > 0 {
                node.reports = node.reports.saturating_add(u32::try_from(earned).unwrap_or(REPORTS)).min(REPORTS);
                node.filled = now;
            }
            node.reports.checked_sub(1).map(|left| node.reports = left).is_some()
        })
    }

    fn with<T>(&self, node: NodeId, now: Instant, act: impl FnOnce(&mut Node) -> T) -> T {
        let mut nodes = self.nodes();
        if !nodes.contains_key(&node) {
            nodes.retain(|_, other| now - other.used < FORGOTTEN || other.fetches.available_permits() < FETCHES);
        }
        let known = nodes.entry(node).or_insert_with(|| Node::new(now));
        known.used = now;
        act(known)
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<NodeId, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u128) -> NodeId {
        NodeId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn reports_are_ten_at_once_and_then_one_a_second() {
        let (bounds, begun) = (Bounds::default(), Instant::now());
        let heard = |at| (0..100).filter(|_| bounds.report(node(1), at)).count();
        assert_eq!(heard(begun), 10);
        assert!(bounds.report(node(2), begun), "another's are its own");
        assert_eq!(heard(begun + Duration::from_secs(3)), 3);
        bounds.report(node(3), begun + 2 * FORGOTTEN);
        assert_eq!(bounds.nodes().len(), 1, "the others said nothing for long");
    }

    #[test]
    fn the_next_watch_ends_the_one_before() {
        let bounds = Bounds::default();
        let (first, other) = (bounds.watch(node(1)), bounds.watch(node(2)));
        let second = bounds.watch(node(1));
        assert!(first.is_cancelled() && !second.is_cancelled() && !other.is_cancelled());
    }
}
