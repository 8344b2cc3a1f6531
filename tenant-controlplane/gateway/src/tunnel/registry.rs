//! Which clusters have what open here: live links by node, tokens that cut, and caps.
//!
//! This is the one place that knows where a link is. A tenant's entry is made when its cluster is first routed to and
//! goes when the cluster is dropped; a node's when it first shows its certificate, until it is dropped.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    limiter::{ConnectionLimiter, LimiterConfig},
    limits::Limits,
    tunnel::{
        budget::{Budget, ClusterBudget},
        client::Link,
        target::Host,
    },
};

/// A passthrough connection over which bytes went this lately makes room for nobody.
const RECENT: Duration = Duration::from_secs(5);

/// A live tunnel, for people and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// `nod_…`
    pub node_id: String,
    /// The node's Kubernetes name.
    pub name: String,
    /// CONNECT streams open on it now.
    pub streams: usize,
    /// The receive window of each of them, bytes.
    pub window: u32,
}

/// All tenants.
pub(crate) struct Registry {
    tenants: Mutex<HashMap<String, Arc<Tenant>>>,
    serial: AtomicU64,
    streams: usize,
    connections: LimiterConfig,
    dials: usize,
    links: usize,
    process: Arc<Budget>,
    cluster_bytes: usize,
    splices: usize,
    hard: CancellationToken,
}

/// What one cluster has open here.
pub(crate) struct Tenant {
    /// Cuts everything of this cluster.
    pub(crate) token: CancellationToken,
    /// Cuts the connections of clients of its API server that are open now.
    clients: Mutex<CancellationToken>,
    /// Permits for tunnel streams.
    pub(crate) streams: Arc<Semaphore>,
    /// The bytes that its tunnel streams may hold.
    pub(crate) memory: Arc<ClusterBudget>,
    /// Limits passthrough connections.
    pub(crate) connections: Arc<ConnectionLimiter>,
    /// Permits for dials to its API server.
    pub(crate) dials: Arc<Semaphore>,
    links: usize,
    splices: usize,
    nodes: Mutex<HashMap<String, Node>>,
}

struct Node {
    token: CancellationToken,
    links: Arc<Semaphore>,
    splices: Arc<Semaphore>,
    link: Option<Arc<Link>>,
}

impl Registry {
    /// An empty registry; `hard` cuts everything.
    pub(crate) fn new(limits: &Limits, hard: CancellationToken) -> Self {
        Self {
            tenants: Mutex::default(),
            serial: AtomicU64::new(0),
            streams: limits.streams_per_cluster,
            connections: LimiterConfig {
                total: limits.connections_per_cluster,
                per_address: limits.connections_per_address,
                per_network: limits.connections_per_cluster,
                min_idle: RECENT,
            },
            dials: limits.dials_per_cluster,
            links: limits.links_per_node,
            process: Budget::new(limits.tunnel_bytes),
            cluster_bytes: limits.tunnel_bytes_per_cluster,
            splices: limits.splices_per_node,
            hard,
        }
    }

    /// The tenant's entry, made if need be. Only for clusters the directory knows.
    pub(crate) fn tenant(&self, cluster_id: &str) -> Arc<Tenant> {
        let mut tenants = self.tenants();
        tenants.entry(cluster_id.to_owned()).or_insert_with(|| Arc::new(self.new_tenant())).clone()
    }

    fn new_tenant(&self) -> Tenant {
        let token = self.hard.child_token();
        Tenant {
            clients: Mutex::new(token.child_token()),
            token,
            streams: Arc::new(Semaphore::new(self.streams)),
            memory: ClusterBudget::new(self.cluster_bytes, self.process.clone()),
            connections: ConnectionLimiter::new(self.connections),
            dials: Arc::new(Semaphore::new(self.dials)),
            links: self.links,
            splices: self.splices,
            nodes: Mutex::default(),
        }
    }

    /// Cuts a node's connections.
    pub(crate) fn node_token(&self, cluster_id: &str, node_id: &str) -> CancellationToken {
        self.tenant(cluster_id).node_token(node_id)
    }

    /// The next link's number: larger is newer.
    pub(crate) fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Relaxed)
    }

    /// Whether the node has a live link.
    pub(crate) fn is_linked(&self, cluster_id: &str, node_id: &str) -> bool {
        let tenant = self.tenants().get(cluster_id).cloned();
        tenant.is_some_and(|tenant| tenant.nodes().get(node_id).is_some_and(|node| node.link.is_some()))
    }

    /// The live links of a cluster.
    pub(crate) fn links(&self, cluster_id: &str) -> Vec<LinkInfo> {
        let Some(tenant) = self.tenants().get(cluster_id).cloned() else { return Vec::new() };
        let nodes = tenant.nodes();
        nodes.values().filter_map(|node| node.link.as_deref()).map(LinkInfo::of).collect()
    }

    /// Every cluster that has or had connections here, with those of its nodes that have.
    pub(crate) fn known(&self) -> Vec<(String, Vec<String>)> {
        let tenants = self.tenants();
        let nodes = |tenant: &Tenant| tenant.nodes().keys().cloned().collect();
        tenants.iter().map(|(cluster, tenant)| (cluster.clone(), nodes(tenant))).collect()
    }

    /// Every node that has a live link, with its cluster.
    pub(crate) fn linked(&self) -> Vec<(String, String)> {
        let tenants: Vec<_> =
            self.tenants().iter().map(|(cluster, tenant)| (cluster.clone(), tenant.clone())).collect();
        let of = |(cluster, tenant): (String, Arc<Tenant>)| {
            let nodes = tenant.nodes();
            let linked = nodes.iter().filter(|(_, node)| node.link.is_some());
            linked.map(|(node, _)| (cluster.clone(), node.clone())).collect::<Vec<_>>()
        };
        tenants.into_iter().flat_map(of).collect()
    }

    /// Cuts a node.
    pub(crate) fn drop_node(&self, cluster_id: &str, node_id: &str) {
        let tenant = self.tenants().get(cluster_id).cloned();
        if let Some(node) = tenant.and_then(|tenant| tenant.nodes().remove(node_id)) {
            node.token.cancel();
        }
    }

    /// Cuts a cluster.
    pub(crate) fn drop_cluster(&self, cluster_id: &str) {
        if let Some(tenant) = self.tenants().remove(cluster_id) {
            tenant.token.cancel();
        }
    }

    /// Cuts a cluster's clients.
    pub(crate) fn drop_clients(&self, cluster_id: &str) {
        let tenant = self.tenants().get(cluster_id).cloned();
        if let Some(tenant) = tenant {
            let mut clients = tenant.clients.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *clients, tenant.token.child_token()).cancel();
        }
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<String, Arc<Tenant>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenant {
    /// Cuts a client's connection: once, for those that are open then, or for good with the cluster.
    pub(crate) fn client_token(&self) -> CancellationToken {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Cuts a node's connections.
    pub(crate) fn node_token(&self, node_id: &str) -> CancellationToken {
        self.with(node_id, |node| node.token.clone())
    }

    /// A permit for one more link of this node; `None` beyond [`Limits::links_per_node`].
    pub(crate) fn link_permit(&self, node_id: &str) -> Option<OwnedSemaphorePermit> {
        self.with(node_id, |node| node.links.clone().try_acquire_owned().ok())
    }

    /// A permit for one more API splice of this node; `None` beyond [`Limits::splices_per_node`].
    pub(crate) fn splice_permit(&self, node_id: &str) -> Option<OwnedSemaphorePermit> {
        self.with(node_id, |node| node.splices.clone().try_acquire_owned().ok())
    }

    fn with<T>(&self, node_id: &str, act: impl FnOnce(&Node) -> T) -> T {
        let mut nodes = self.nodes();
        let limiter = |count| Arc::new(Semaphore::new(count));
        let fresh = || Node {
            token: self.token.child_token(),
            links: limiter(self.links),
            splices: limiter(self.splices),
            link: None,
        };
        act(nodes.entry(node_id.to_owned()).or_insert_with(fresh))
    }

    /// Makes `link` its node's link; the one before drains. `false`: the node was dropped meanwhile.
    pub(crate) fn enter(&self, link: &Arc<Link>) -> bool {
        let mut nodes = self.nodes();
        let Some(node) = nodes.get_mut(&link.node_id) else { return false };
        if link.closed.is_cancelled() {
            return false;
        }
        if let Some(older) = node.link.replace(link.clone()) {
            older.drain();
        }
        true
    }

    /// Takes `link` out, unless a newer one took its place already.
    pub(crate) fn leave(&self, link: &Link) {
        if let Some(node) = self.nodes().get_mut(&link.node_id) {
            node.link.take_if(|current| current.serial == link.serial);
        }
    }

    /// The link of the node that a host is, or is a pod of.
    pub(crate) fn own(&self, host: &Host) -> Option<Arc<Link>> {
        let nodes = self.nodes();
        let links = nodes.values().filter_map(|node| node.link.as_ref());
        links.filter(|link| link.owns(host)).max_by_key(|link| link.serial).cloned()
    }

    /// The least busy link: for what lies on no node in particular, such as a service.
    pub(crate) fn any(&self) -> Option<Arc<Link>> {
        let nodes = self.nodes();
        nodes.values().filter_map(|node| node.link.as_ref()).min_by_key(|link| link.streams()).cloned()
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<String, Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkInfo {
    fn of(link: &Link) -> Self {
        Self {
            node_id: link.node_id.clone(),
            name: link.name.clone(),
            streams: link.streams(),
            window: link.window.size(),
        }
    }
}
