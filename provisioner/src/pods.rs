//! The pods of all control planes, from one shared watch: who has which address now, and a signal each time that changes.
//!
//! Signals only wake; what is true is read from the index. Before the first full list nothing is known, which is not the same as empty.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use tenant_controlplane::id::ClusterId;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::host::{Kubernetes, PodInfo, Watch, WatchEvent};

/// Signals kept for a slow receiver; one that misses some is notified and reconciles everything.
const BACKLOG: usize = 1024;
const REST: Duration = Duration::from_millis(500);

type ByCluster = HashMap<ClusterId, BTreeMap<String, PodInfo>>;

/// The index.
#[derive(Debug)]
pub struct Pods {
    known: RwLock<Option<ByCluster>>,
    changes: broadcast::Sender<ClusterId>,
}

impl Default for Pods {
    fn default() -> Self {
        Self { known: RwLock::new(None), changes: broadcast::Sender::new(BACKLOG) }
    }
}

impl Pods {
    /// A cluster's pods, etcd first; `None` while nothing is known.
    pub fn of(&self, cluster: ClusterId) -> Option<Vec<PodInfo>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut pods: Vec<_> = known.as_ref()?.get(&cluster).into_iter().flat_map(BTreeMap::values).cloned().collect();
        pods.sort_by(|a, b| (a.component, &a.name).cmp(&(b.component, &b.name)));
        Some(pods)
    }

    /// Every pod there is; `None` while nothing is known.
    pub fn all(&self) -> Option<Vec<PodInfo>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        Some(known.as_ref()?.values().flat_map(BTreeMap::values).cloned().collect())
    }

    /// Signals: the cluster one of whose pods changed.
    pub fn changes(&self) -> broadcast::Receiver<ClusterId> {
        self.changes.subscribe()
    }

    /// Takes in what a watch saw.
    pub fn take(&self, event: WatchEvent<PodInfo>) {
        let changed = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            update(&mut known, event)
        };
        for cluster in changed {
            // Nobody listening is fine.
            let _ = self.changes.send(cluster);
        }
    }

    /// Watches until cancelled; a watch that breaks is begun again, and what was known stays known meanwhile.
    pub async fn run(&self, host: &dyn Kubernetes, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            tokio::select! {
                () = self.follow(host.watch_pods()) => {}
                () = cancel.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(REST) => {}
                () = cancel.cancelled() => {}
            }
        }
    }

    async fn follow(&self, mut watch: Watch<PodInfo>) {
        while let Some(event) = watch.next().await {
            match event {
                Ok(event) => self.take(event),
                Err(error) => {
                    tracing::warn!(error = crate::chain(&error), "watch of the host's pods failed");
                    return;
                }
            }
        }
    }
}

/// Applies what was seen; answers whose pods changed.
fn update(known: &mut Option<ByCluster>, event: WatchEvent<PodInfo>) -> Vec<ClusterId> {
    match event {
        WatchEvent::All(pods) => {
            let mut fresh = ByCluster::new();
            for pod in pods {
                fresh.entry(pod.cluster).or_default().insert(pod.name.clone(), pod);
            }
            let old = known.replace(fresh).unwrap_or_default();
            let fresh = known.iter().flatten();
            let changed = fresh.filter(|(cluster, pods)| old.get(cluster) != Some(pods)).map(|(cluster, _)| *cluster);
            let mut changed: Vec<_> = changed.collect();
            changed
                .extend(old.keys().filter(|cluster| !known.as_ref().is_some_and(|fresh| fresh.contains_key(cluster))));
            changed
        }
        WatchEvent::Changed(pod) => {
            let Some(all) = known.as_mut() else { return Vec::new() };
            let cluster = pod.cluster;
            let pods = all.entry(cluster).or_default();
            let same = pods.get(&pod.name) == Some(&pod);
            pods.insert(pod.name.clone(), pod);
            if same { Vec::new() } else { vec![cluster] }
        }
        WatchEvent::Gone(pod) => {
            let Some(all) = known.as_mut() else { return Vec::new() };
            if let Some(pods) = all.get_mut(&pod.cluster) {
                pods.remove(&pod.name);
                if pods.is_empty() {
                    all.remove(&pod.cluster);
                }
            }
            vec![pod.cluster]
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::host::Component;

    /// A running pod.
    pub fn pod(cluster: u128, component: Component, name: &str, address: [u8; 4]) -> PodInfo {
        let cluster = ClusterId::from_uuid(uuid::Uuid::from_u128(cluster));
        let (address, waiting_reason) = (Some(address.into()), None);
        PodInfo { cluster, component, name: name.to_owned(), address, ready: false, terminating: false, waiting_reason }
    }

    #[test]
    fn unknown_is_not_empty() {
        let pods = Pods::default();
        let one = pod(1, Component::Etcd, "etcd-0", [10, 0, 0, 1]);
        assert_eq!(pods.of(one.cluster), None);
        pods.take(WatchEvent::All(Vec::new()));
        assert_eq!(pods.of(one.cluster), Some(Vec::new()));
    }

    #[test]
    fn tells_whose_pods_changed_and_nobody_elses() {
        let pods = Pods::default();
        let (one, two) =
            (pod(1, Component::Etcd, "etcd-0", [10, 0, 0, 1]), pod(2, Component::Etcd, "etcd-0", [10, 0, 0, 2]));
        pods.take(WatchEvent::All(vec![one.clone(), two.clone()]));
        let mut changes = pods.changes();
        pods.take(WatchEvent::Changed(one.clone()));
        pods.take(WatchEvent::All(vec![one.clone()]));
        assert_eq!(changes.try_recv().unwrap(), two.cluster);
        pods.take(WatchEvent::Changed(PodInfo { ready: true, ..one.clone() }));
        assert_eq!(changes.try_recv().unwrap(), one.cluster);
        pods.take(WatchEvent::Gone(one.clone()));
        assert_eq!(changes.try_recv().unwrap(), one.cluster);
        assert!(changes.try_recv().is_err());
        assert_eq!(pods.all(), Some(Vec::new()));
    }
}
