//! Clients of tenants' API servers, and their nodes as Kubernetes has them.
//!
//! Clients are kept while their short certificates last. A cluster that has nodes is watched; one without is left alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use migrations::{Cluster, Store};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::pki::{ClusterPki, KeySource, platform_access, provisioner_access};
use tenant_controlplane::sni;
use time::OffsetDateTime;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::InstallationInfo;
use crate::error::ReconcileError;
use crate::host::{Announced, ApiError, Connector, Kubernetes, NodeStatus, Site, TenantConnection, Watch, WatchEvent};

/// Signals kept for a slow listener.
const BACKLOG: usize = 1024;
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// The least time between two changes of one cluster's nodes that are passed on: each costs everybody's database a few questions, and a
/// tenant can change its nodes as often as it likes.
const PACE: Duration = Duration::from_millis(10);
/// How long nodes are believed after the watch broke.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// As whom to call a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// The very first access, that needs no binding: until a cluster is set up, and when somebody took the platform's binding away.
    First,
    /// The platform's own, bound like anybody's.
    Platform,
}

impl Identity {
    /// How long a client is kept: well below its certificate's life.
    const fn keep(self) -> Duration {
        match self {
            Self::First => Duration::from_secs(8 * 60),
            Self::Platform => Duration::from_secs(12 * 3600),
        }
    }
}

type ClientKey = (ClusterId, String, Identity);
/// A client, and since when.
type CachedClient = (Arc<dyn Kubernetes>, Instant);
type Nodes = BTreeMap<String, NodeStatus>;

/// Clients and watches of tenants.
pub struct Tenants {
    store: Store,
    connector: Arc<dyn Connector>,
    keys: Arc<dyn KeySource>,
    installation: Arc<InstallationInfo>,
    clients: Mutex<HashMap<ClientKey, CachedClient>>,
    watched: Mutex<HashMap<ClusterId, Watched>>,
    changes: broadcast::Sender<(ClusterId, String)>,
}

struct Watched {
    nodes: Option<Nodes>,
    broken_since: Option<Instant>,
    _stop: DropGuard,
}

impl Tenants {
    /// Nothing opened, nothing watched.
    pub fn new(
        store: Store,
        connector: Arc<dyn Connector>,
        keys: Arc<dyn KeySource>,
        installation: Arc<InstallationInfo>,
    ) -> Self {
        let changes = broadcast::Sender::new(BACKLOG);
        Self { store, connector, keys, installation, clients: Mutex::default(), watched: Mutex::default(), changes }
    }

    /// A client of a cluster's API server at `address`.
    ///
    /// # Errors
    /// [`ReconcileError`] when no certificate or client can be made.
    pub fn client(
        &self,
        cluster: ClusterId,
        pki: &ClusterPki,
        address: &str,
        identity: Identity,
    ) -> Result<Arc<dyn Kubernetes>, ReconcileError> {
        let key = (cluster, address.to_owned(), identity);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|(_, _, identity), (_, made)| made.elapsed() < identity.keep());
        if let Some((api, _)) = clients.get(&key) {
            return Ok(Arc::clone(api));
        }
        let now = OffsetDateTime::now_utc();
        let leaf = match identity {
            Identity::First => provisioner_access(pki, now, &*self.keys)?,
            Identity::Platform => platform_access(pki, now, &*self.keys)?,
        };
        let client = TenantConnection { site: self.site(cluster, pki, address), identity: leaf };
        let api = self.connector.connect(&client).map_err(ReconcileError::cluster_api)?;
        clients.insert(key, (Arc::clone(&api), Instant::now()));
        Ok(api)
    }

    fn site(&self, cluster: ClusterId, pki: &ClusterPki, address: &str) -> Site {
        let (server_name, ca_pem) = (sni::api(cluster, &self.installation.domain), pki.serving.trust_pem());
        Site { address: address.to_owned(), server_name, ca_pem }
    }

    /// Whom the API server at this address says it believes.
    ///
    /// # Errors
    /// [`ApiError`] when it does not answer.
    pub async fn announced(&self, cluster: ClusterId, pki: &ClusterPki, address: &str) -> Result<Announced, ApiError> {
        self.connector.announced(&self.site(cluster, pki, address)).await
    }

    /// The way to a cluster that has an endpoint and keys; `None` while it has none.
    ///
    /// # Errors
    /// [`ReconcileError`] of the store, or when no client can be made.
    pub async fn reach(&self, cluster: &Cluster) -> Result<Option<Arc<dyn Kubernetes>>, ReconcileError> {
        let Some(endpoint) = cluster.endpoint.as_deref() else { return Ok(None) };
        let Some(pki) = self.store.pki().get(cluster.id).await? else { return Ok(None) };
        self.client(cluster.id, &pki, endpoint, Identity::Platform).map(Some)
    }

    /// Signals: a cluster and the name of one of its nodes that changed; an empty name stands for all.
    pub fn changes(&self) -> broadcast::Receiver<(ClusterId, String)> {
        self.changes.subscribe()
    }

    /// What Kubernetes knows of a node: `None`: unknown, `Some(None)`: observed to be absent.
    pub fn node(&self, cluster: ClusterId, name: &str) -> Option<Option<NodeStatus>> {
        let watched = self.watched();
        let found = watched.get(&cluster)?;
        let stale = found.broken_since.is_some_and(|since| since.elapsed() > STALE_AFTER);
        found.nodes.as_ref().filter(|_| !stale).map(|nodes| nodes.get(name).cloned())
    }

    /// Watches a cluster's nodes from now on.
    pub fn watch(self: &Arc<Self>, cluster: ClusterId) {
        let mut watched = self.watched();
        if watched.contains_key(&cluster) {
            return;
        }
        let cancel = CancellationToken::new();
        let stop = cancel.clone().drop_guard();
        watched.insert(cluster, Watched { nodes: None, broken_since: Some(Instant::now()), _stop: stop });
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut backoff = FIRST_BACKOFF;
            while let Some(this) = this.upgrade() {
                let began = Instant::now();
                tokio::select! {
                    () = this.follow(cluster) => {}
                    () = cancel.cancelled() => return,
                }
                this.broke(cluster);
                drop(this);
                backoff =
                    if began.elapsed() > LONGEST_BACKOFF { FIRST_BACKOFF } else { (backoff * 2).min(LONGEST_BACKOFF) };
                tokio::select! {
                    () = tokio::time::sleep(backoff) => {}
                    () = cancel.cancelled() => return,
                }
            }
        });
    }

    /// Stops watching a cluster and drops its clients.
    pub fn forget(&self, cluster: ClusterId) {
        self.watched().remove(&cluster);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|(known, _, _), _| *known != cluster);
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<ClusterId, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broke(&self, cluster: ClusterId) {
        if let Some(watched) = self.watched().get_mut(&cluster) {
            watched.broken_since.get_or_insert_with(Instant::now);
        }
    }

    /// Watches until the watch breaks or its certificate grows old.
    async fn follow(&self, cluster: ClusterId) {
        let Some(watch) = self.open(cluster).await else { return };
        let whole = self.take_all(cluster, watch);
        if tokio::time::timeout(Identity::Platform.keep(), whole).await.is_err() {
            tracing::debug!(%cluster, "renewing the watch of nodes");
        }
    }

    async fn open(&self, cluster: ClusterId) -> Option<Watch<NodeStatus>> {
        let row = self.store.clusters().load(cluster).await.ok()?;
        match self.reach(&row).await {
            Ok(api) => api.map(|api| api.watch_nodes()),
            Err(error) => {
                tracing::warn!(%cluster, error = crate::chain(&error), "watch nodes");
                None
            }
        }
    }

    async fn take_all(&self, cluster: ClusterId, mut watch: Watch<NodeStatus>) {
        while let Some(event) = watch.next().await {
            match event {
                Ok(event) => {
                    if self.take(cluster, event) {
                        tokio::time::sleep(PACE).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(%cluster, error = crate::chain(&error), "watch of nodes failed");
                    return;
                }
            }
        }
    }

    /// Takes in an event; returns whether it changed anything.
    fn take(&self, cluster: ClusterId, event: WatchEvent<NodeStatus>) -> bool {
        let name = {
            let mut watched = self.watched();
            let Some(watched) = watched.get_mut(&cluster) else { return false };
            watched.broken_since = None;
            update(&mut watched.nodes, event)
        };
        let is_changed = name.is_some();
        if let Some(name) = name {
            // Nobody listening is fine.
            let _ = self.changes.send((cluster, name));
        }
        is_changed
    }
}

/// Applies what was seen; answers the name to signal, if anything changed.
fn update(known: &mut Option<Nodes>, event: WatchEvent<NodeStatus>) -> Option<String> {
    match event {
        WatchEvent::All(nodes) => {
            *known = Some(nodes.into_iter().map(|node| (node.name.clone(), node)).collect());
            Some(String::new())
        }
        WatchEvent::Changed(node) => {
            let (name, nodes) = (node.name.clone(), known.as_mut()?);
            let different = nodes.get(&name) != Some(&node);
            nodes.insert(name.clone(), node);
            different.then_some(name)
        }
        WatchEvent::Gone(node) => known.as_mut()?.remove(&node.name).map(|node| node.name),
    }
}
