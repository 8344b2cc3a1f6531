//! What one node, and one join token, may ask of the platform, whatever is done with streams: root on a joined machine is a tenant.
//!
//! Each method of a node has a bucket of its own. Parts are counted in bytes too, and their transfers are so many at a time: for a
//! node, for a cluster and in all.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tenant_controlplane::id::{ClusterId, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::bucket::{Bucket, Limit};

/// Parts sent at a time: to a node (an agent gets three at once), to the nodes of a cluster, in all. More wait.
const TRANSFERS: [usize; 3] = [4, 16, 64];
/// Bytes of parts to a node: all it needs, six times at once, and so much an hour.
const BYTES: Limit = Limit { at_once: 2 << 30, every: Duration::from_nanos(3_600_000_000_000 / (2 << 30)) };
/// Enrollments with one token: a pool of machines that boot together.
const TOKEN: Limit = Limit { at_once: 200, every: Duration::from_millis(500) };
/// And of one machine with it: the first, and some repeats whose answers were lost.
const MACHINE: Limit = Limit { at_once: 6, every: Duration::from_secs(10) };
/// A node that asked for nothing in this time is forgotten, when its buckets are full.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Tokens and machines that are counted at a time.
const COUNTED: usize = 20_000;

/// What a node calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The configuration.
    Watch,
    /// How the machine does.
    Report,
    /// A part.
    Fetch,
    /// Certificates.
    Renew,
}

impl Method {
    const ALL: [Self; 4] = [Self::Watch, Self::Report, Self::Fetch, Self::Renew];

    /// How often.
    pub fn limit(self) -> Limit {
        let (at_once, every) = match self {
            Self::Watch => (10, Duration::from_secs(1)),
            Self::Report => (10, Duration::from_secs(1)),
            Self::Fetch => (120, Duration::from_secs(1)),
            Self::Renew => (4, Duration::from_secs(900)),
        };
        Limit { at_once, every }
    }
}

/// The bounds of all nodes and tokens.
pub struct Bounds {
    nodes: Mutex<HashMap<NodeId, Node>>,
    clusters: Mutex<HashMap<ClusterId, Arc<Semaphore>>>,
    all: Arc<Semaphore>,
    /// By a keyed hash of the token, and of token and machine: neither is kept.
    tokens: Mutex<HashMap<u64, Bucket>>,
    hasher: RandomState,
}

struct Node {
    transfers: Arc<Semaphore>,
    watch: CancellationToken,
    calls: [Bucket; Method::ALL.len()],
    bytes: Bucket,
    used: Instant,
}

/// The places of a part's transfer.
#[derive(Debug)]
pub struct Transfer {
    _permits: [OwnedSemaphorePermit; 3],
}

impl Default for Bounds {
    fn default() -> Self {
        let (nodes, clusters, tokens) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { nodes, clusters, tokens, all: Arc::new(Semaphore::new(TRANSFERS[2])), hasher: RandomState::new() }
    }
}

impl Node {
    fn new(now: Instant) -> Self {
        let (transfers, watch) = (Arc::new(Semaphore::new(TRANSFERS[0])), CancellationToken::new());
        Self { transfers, watch, calls: [Bucket::full(now); Method::ALL.len()], bytes: Bucket::full(now), used: now }
    }

    /// Whether nothing of it is counted any more; its watch, if it has one, comes with reports.
    fn is_forgettable(&self, now: Instant) -> bool {
        let rested = now.saturating_duration_since(self.used) >= FORGOTTEN
            && self.calls.iter().chain([&self.bytes]).all(|bucket| bucket.is_full(now));
        rested && self.transfers.available_permits() == TRANSFERS[0]
    }
}

impl Bounds {
    /// Counts a call.
    ///
    /// # Errors
    /// The time until one is heard.
    pub fn call(&self, node: NodeId, method: Method, now: Instant) -> Result<(), Duration> {
        self.with(node, now, |node| node.calls[method as usize].take(method.limit(), now))
    }

    /// Waits for a place for a part.
    ///
    /// # Errors
    /// The time until the node may have bytes again.
    pub async fn transfer(&self, cluster: ClusterId, node: NodeId) -> Result<Transfer, Duration> {
        let now = Instant::now();
        let own = self.with(node, now, |node| node.bytes.check(BYTES, now).map(|()| node.transfers.clone()))?;
        let clusters = self.cluster(cluster);
        // In this order: who waits holds only what is its own.
        let [own, cluster, all] = [own, clusters, self.all.clone()].map(Semaphore::acquire_owned);
        match (own.await, cluster.await, all.await) {
            (Ok(own), Ok(cluster), Ok(all)) => Ok(Transfer { _permits: [own, cluster, all] }),
            _ => Err(Duration::from_secs(1)),
        }
    }

    /// Counts bytes that were sent.
    pub fn sent(&self, node: NodeId, bytes: u64, now: Instant) {
        self.with(node, now, |node| node.bytes.spend(BYTES, bytes, now));
    }

    /// Counts an enrollment.
    ///
    /// # Errors
    /// The time until one is heard.
    pub fn enroll(&self, token: &str, fingerprint: &str, now: Instant) -> Result<(), Duration> {
        let keys = [(self.hasher.hash_one((token, "")), TOKEN), (self.hasher.hash_one((token, fingerprint)), MACHINE)];
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() + keys.len() > COUNTED {
            tokens.retain(|_, bucket| !bucket.is_full(now));
        }
        if tokens.len() + keys.len() > COUNTED {
            // Invented tokens, each refused by the store in any case.
            tokens.clear();
        }
        keys.into_iter()
            .try_for_each(|(key, limit)| tokens.entry(key).or_insert_with(|| Bucket::full(now)).take(limit, now))
    }

    /// Ends the node's watch before this one, whose connection may be long dead. The token is cancelled by the next.
    pub fn watch(&self, node: NodeId) -> CancellationToken {
        self.with(node, Instant::now(), |node| {
            node.watch.cancel();
            node.watch = CancellationToken::new();
            node.watch.clone()
        })
    }

    fn cluster(&self, cluster: ClusterId) -> Arc<Semaphore> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        if !clusters.contains_key(&cluster) {
            clusters.retain(|_, permits| permits.available_permits() < TRANSFERS[1]);
        }
        clusters.entry(cluster).or_insert_with(|| Arc::new(Semaphore::new(TRANSFERS[1]))).clone()
    }

    fn with<T>(&self, node: NodeId, now: Instant, act: impl FnOnce(&mut Node) -> T) -> T {
        let mut nodes = self.nodes();
        if !nodes.contains_key(&node) {
            nodes.retain(|_, other| !other.is_forgettable(now));
        }
        let state = nodes.entry(node).or_insert_with(|| Node::new(now));
        state.used = now;
        act(state)
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
    fn each_method_has_a_bucket_of_its_own() {
        let (bounds, begun) = (Bounds::default(), Instant::now());
        for (method, at_once) in [(Method::Watch, 10), (Method::Report, 10), (Method::Fetch, 120), (Method::Renew, 4)] {
            let accepted = |at| (0..200).filter(|_| bounds.call(node(1), method, at).is_ok()).count();
            assert_eq!(accepted(begun), at_once, "{method:?}");
            assert_eq!(accepted(begun + 3 * method.limit().every), 3, "{method:?}");
            assert!(bounds.call(node(2), method, begun).is_ok(), "another's are its own");
        }
    }

    #[test]
    fn an_hour_of_silence_is_forgotten_and_no_less() {
        let (bounds, begun) = (Bounds::default(), Instant::now());
        let renewals = |at| (0..9).filter(|_| bounds.call(node(1), Method::Renew, at).is_ok()).count();
        assert_eq!(renewals(begun), 4);
        bounds.call(node(2), Method::Report, begun + Duration::from_secs(800)).unwrap();
        assert_eq!(renewals(begun + Duration::from_secs(800)), 0, "the others are still counted");
        bounds.call(node(3), Method::Report, begun + Duration::from_secs(3601)).unwrap();
        assert_eq!(bounds.nodes().len(), 1, "the others rested");
    }

    #[test]
    fn a_token_is_heard_so_often_and_a_machine_less_often() {
        let (bounds, now) = (Bounds::default(), Instant::now());
        let machine = (0..50).filter(|_| bounds.enroll("token", "machine", now).is_ok()).count();
        assert_eq!(machine, 6);
        let machines = (0..500).filter(|at| bounds.enroll("other", &at.to_string(), now).is_ok()).count();
        assert_eq!(machines, 200);
        for at in 0..2 * COUNTED {
            bounds.enroll(&format!("invented {at}"), "m", now).unwrap();
        }
        assert!(bounds.tokens.lock().unwrap().len() <= COUNTED);
    }

    #[tokio::test]
    async fn who_had_its_bytes_waits_for_more() {
        let (bounds, cluster) = (Bounds::default(), ClusterId::from_uuid(uuid::Uuid::from_u128(9)));
        let held: Vec<_> = futures::future::join_all((0..4).map(|_| bounds.transfer(cluster, node(1)))).await;
        assert!(held.iter().all(Result::is_ok));
        assert!(futures::poll!(Box::pin(bounds.transfer(cluster, node(1)))).is_pending(), "four at a time");
        drop(held);
        bounds.sent(node(1), 2 * BYTES.at_once, Instant::now());
        let wait = bounds.transfer(cluster, node(1)).await.unwrap_err();
        assert!(wait > Duration::from_secs(3000) && wait < Duration::from_secs(3601), "{wait:?}");
        bounds.transfer(cluster, node(2)).await.unwrap();
    }

    #[tokio::test]
    async fn a_cluster_of_many_nodes_does_not_take_all_places() {
        let bounds = Bounds::default();
        let [cluster, other] = [8, 9].map(|number| ClusterId::from_uuid(uuid::Uuid::from_u128(number)));
        let mut held = Vec::new();
        for number in 0..16 {
            held.push(bounds.transfer(cluster, node(number)).await.unwrap());
        }
        assert!(futures::poll!(Box::pin(bounds.transfer(cluster, node(17)))).is_pending());
        bounds.transfer(other, node(18)).await.unwrap();
    }

    #[test]
    fn the_next_watch_ends_the_one_before() {
        let bounds = Bounds::default();
        let (first, other) = (bounds.watch(node(1)), bounds.watch(node(2)));
        let second = bounds.watch(node(1));
        assert!(first.is_cancelled() && !second.is_cancelled() && !other.is_cancelled());
    }
}
