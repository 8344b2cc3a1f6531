//! The directory with a memory: a cluster stays reachable while the database is not.
//!
//! Each lookup asks the directory, for a bounded time. "Not there" is believed and forgets; an error or silence falls
//! back to the last answer. Only what once existed is remembered for long. That nobody has a name is remembered for a moment, and of
//! so many names at most, so that whoever asks for it again and again asks the database once.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::timeout;
use tracing::warn;

use crate::{
    directory::{ClusterRoute, Directory, DirectoryError, NodeRoute, RemoteLink},
    limits::Limits,
};

/// Labels remembered as nobody's, at most.
const MOST_UNKNOWN: usize = 4096;

#[derive(Default)]
struct Memory {
    clusters: HashMap<String, ClusterRoute>,
    /// Labels that nobody has, and when that was read.
    unknown: HashMap<String, Instant>,
    nodes: HashMap<(String, String), NodeRoute>,
    /// By cluster.
    remote: HashMap<String, Vec<RemoteLink>>,
}

impl Memory {
    /// Remembers that nobody has this label; the table never grows beyond [`MOST_UNKNOWN`].
    fn note_unknown(&mut self, label: &str, long: Duration) {
        if self.unknown.len() >= MOST_UNKNOWN {
            self.unknown.retain(|_, heard| heard.elapsed() < long);
        }
        if self.unknown.len() < MOST_UNKNOWN {
            self.unknown.insert(label.to_owned(), Instant::now());
        }
    }
}

/// Lookups that outlive the directory's absences.
pub(crate) struct Routes {
    directory: Arc<dyn Directory>,
    lookup_timeout: Duration,
    unknown_time: Duration,
    memory: Mutex<Memory>,
}

impl Routes {
    /// Asks `directory`, waiting as the limits say for each answer.
    pub(crate) fn new(directory: Arc<dyn Directory>, limits: &Limits) -> Self {
        let (lookup_timeout, unknown_time) = (limits.lookup_time, limits.unknown_time);
        Self { directory, lookup_timeout, unknown_time, memory: Mutex::default() }
    }

    /// The cluster with this label.
    pub(crate) async fn cluster(&self, label: &str) -> Result<Option<ClusterRoute>, DirectoryError> {
        if self.is_unknown(label) {
            return Ok(None);
        }
        match self.within(self.directory.cluster(label)).await {
            Ok(Some(route)) => {
                let mut memory = self.memory();
                memory.unknown.remove(label);
                memory.clusters.insert(label.to_owned(), route.clone());
                Ok(Some(route))
            }
            Ok(None) => {
                let mut memory = self.memory();
                memory.clusters.remove(label);
                memory.note_unknown(label, self.unknown_time);
                Ok(None)
            }
            Err(error) => recall(self.memory().clusters.get(label).cloned(), error),
        }
    }

    /// The same for its nodes: also one that was deleted lately.
    pub(crate) async fn cluster_of_nodes(&self, label: &str) -> Result<Option<ClusterRoute>, DirectoryError> {
        let name = format!("{label}.link");
        match self.cluster(label).await? {
            None if self.is_unknown(&name) => Ok(None),
            None => {
                let found = self.within(self.directory.deleted_cluster(label)).await?;
                if found.is_none() {
                    self.memory().note_unknown(&name, self.unknown_time);
                }
                Ok(found)
            }
            there => Ok(there),
        }
    }

    /// Whether it was read just now that nobody has this label.
    fn is_unknown(&self, label: &str) -> bool {
        self.memory().unknown.get(label).is_some_and(|heard| heard.elapsed() < self.unknown_time)
    }

    /// The node, if it still belongs to that cluster.
    pub(crate) async fn node(&self, cluster: &str, node: &str) -> Result<Option<NodeRoute>, DirectoryError> {
        let key = (cluster.to_owned(), node.to_owned());
        match self.within(self.directory.node(cluster, node)).await {
            Ok(Some(route)) => {
                self.memory().nodes.insert(key, route.clone());
                Ok(Some(route))
            }
            Ok(None) => {
                self.memory().nodes.remove(&key);
                Ok(None)
            }
            Err(error) => recall(self.memory().nodes.get(&key).cloned(), error),
        }
    }

    /// The cluster's nodes whose tunnels are at other gateways.
    pub(crate) async fn remote_links(&self, cluster: &str) -> Result<Vec<RemoteLink>, DirectoryError> {
        match self.within(self.directory.remote_links(cluster)).await {
            Ok(links) => {
                self.memory().remote.insert(cluster.to_owned(), links.clone());
                Ok(links)
            }
            Err(error) => recall(self.memory().remote.get(cluster).cloned(), error).map(Option::unwrap_or_default),
        }
    }

    /// The name of the node in whose pod range an address lies. Not remembered: it only makes a refusal clearer.
    pub(crate) async fn owner(&self, cluster: &str, address: Ipv4Addr) -> Result<Option<String>, DirectoryError> {
        self.within(self.directory.owner(cluster, address)).await
    }

    /// Forgets a removed node.
    pub(crate) fn forget_node(&self, cluster: &str, node: &str) {
        self.memory().nodes.remove(&(cluster.to_owned(), node.to_owned()));
    }

    /// Forgets a deleted cluster and its nodes.
    pub(crate) fn forget_cluster(&self, cluster: &str) {
        let mut memory = self.memory();
        memory.clusters.retain(|_, route| route.cluster_id != cluster);
        memory.nodes.retain(|(owner, _), _| owner != cluster);
        memory.remote.remove(cluster);
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T, DirectoryError>>) -> Result<T, DirectoryError> {
        timeout(self.lookup_timeout, answer)
            .await
            .unwrap_or_else(|_| Err(DirectoryError::new("directory lookup timed out")))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn recall<T>(known: Option<T>, error: DirectoryError) -> Result<Option<T>, DirectoryError> {
    let Some(known) = known else { return Err(error) };
    warn!(error = &error as &dyn std::error::Error, "directory unavailable: using the last known route");
    Ok(Some(known))
}
