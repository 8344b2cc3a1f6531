//! The gateway: one TLS port for every cluster, routed by SNI, and the reverse tunnel to nodes.
//!
//! The ClientHello of an inbound connection is read first, within bounds ([`hello`]); its name ([`node_protocol::server_name`]) says where it
//! goes:
//!
//! ```text
//! <label>.api               ─▶ passthrough: the bytes go to the tenant API server untouched
//! link                      ─▶ TLS ended here, gRPC enrollment            ─▶ link sink, no identity
//! <label>.link              ─▶ TLS ended here, client certificate needed ─▶ by ALPN: link sink, tunnel, or API splice
//! <label>.egress            ─▶ TLS ended here, client certificate needed ─▶ CONNECT: a stream over some node's tunnel
//! <id>.gateway              ─▶ TLS ended here, a gateway's certificate   ─▶ CONNECT: a stream over a tunnel that is here
//! anything else, no name    ─▶ TLS ended here                            ─▶ portal sink
//! ```
//!
//! Beside the shared port a cluster may have one of its own, for clients that cannot ask for a name: it leads to that API server alone.
//!
//! The gateway keeps nothing on disk and knows clusters only through [`Directory`]; what it last read from there
//! it goes on using while the directory cannot answer. Several may share one directory ([`Peers`]): what a node is asked for reaches
//! it through the gateway that has its tunnel. What is absent: it never opens a connection to an address a tenant names; only agents do
//! that, on their own machine.

mod accept;
mod api_splice;
mod claim;
mod conn;
mod counters;
mod dial;
mod directory;
mod egress;
mod error;
mod forward;
mod hello;
mod identity;
mod limiter;
mod limits;
mod link;
mod passthrough;
mod routes;
mod socket;
mod splice;
mod tls;
mod tunnel;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

pub use crate::{
    claim::Claim,
    conn::{Conn, TlsStream},
    counters::{Kind, Refused, Snapshot},
    directory::{ClusterRoute, Directory, DirectoryError, NodeRoute, RemoteLink},
    error::GatewayError,
    forward::Peers,
    limits::Limits,
    tunnel::registry::LinkInfo,
};
use crate::{
    counters::{Counters, Live},
    forward::PeerState,
    limiter::{Acquired, ConnectionLimiter, ConnectionPermit, LimiterConfig},
    routes::Routes,
    tls::Tls,
    tunnel::{notify::Notifier, registry::Registry},
};

/// After the cut, how long owners of streams get to notice and drop them.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Who is at the other end of a decrypted stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The TCP peer.
    pub address: SocketAddr,
    /// Cluster id and node id, from a client certificate verified against that cluster's link CA; `None` on the
    /// portal and on `link.<domain>`.
    pub node: Option<(String, String)>,
}

/// Takes over a decrypted stream. Called on the runtime: it must not block (spawn, and return).
pub type Sink = Arc<dyn Fn(TlsStream, Peer) + Send + Sync>;

/// What a gateway is made of.
pub struct GatewayConfig {
    /// The one port.
    pub listener: TcpListener,
    /// Domain of the instance, such as `pilothouse.internal`.
    pub domain: String,
    /// The gateway's own certificate chain (leaf first) and key, for every name whose TLS ends here.
    pub server_cert: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    /// How other gateways on the same directory are reached; `None` where this is the only one.
    pub peers: Option<Peers>,
    /// Where clusters and nodes are looked up.
    pub directory: Arc<dyn Directory>,
    /// Takes browsers and API clients (ALPN `h2` or `http/1.1`).
    pub portal: Sink,
    /// Takes agents' gRPC (ALPN `h2`): without identity only enrollment may be served.
    pub link: Sink,
    /// Bounds on time, memory and numbers.
    pub limits: Limits,
}

/// Everything the parts of one gateway share.
pub(crate) struct GatewayState {
    domain: String,
    routes: Routes,
    tls: Tls,
    peers: Option<PeerState>,
    registry: Registry,
    notifier: Notifier,
    counters: Arc<Counters>,
    portal: Sink,
    link: Sink,
    limits: Limits,
    /// Limits connections whose handshake is not over.
    pending: Arc<ConnectionLimiter>,
    /// Limits unauthenticated connections to the portal.
    portals: Arc<ConnectionLimiter>,
    /// Limits authenticated connections to the portal.
    callers: Arc<ConnectionLimiter>,
    /// Limits enrollments, which are unauthenticated.
    enrollments: Arc<ConnectionLimiter>,
    tasks: TaskTracker,
    /// Cancelled first: no new connections, links drain.
    stopping: CancellationToken,
    /// Cancelled last: whatever still runs is cut.
    hard: CancellationToken,
}

impl GatewayState {
    /// What goes with a connection of this kind: it is counted as open, and waited for.
    fn live(&self, kind: Kind) -> (Live, TaskTrackerToken) {
        (self.counters.open(kind), self.tasks.token())
    }

    /// A permit for a connection that `cut` ends; a connection that gets none, or is evicted for this one, is counted.
    fn permit(
        &self,
        limiter: &Arc<ConnectionLimiter>,
        address: IpAddr,
        cut: &CancellationToken,
    ) -> Option<ConnectionPermit> {
        match limiter.take(address, cut.clone()) {
            Acquired::Permit(permit, has_evicted) => {
                if has_evicted {
                    self.counters.refuse(Refused::Crowd);
                }
                Some(permit)
            }
            Acquired::Rejected => {
                self.counters.refuse(Refused::Crowd);
                None
            }
        }
    }
}

/// A running (or not yet running) gateway; clones are handles to the same one.
#[derive(Clone)]
pub struct Gateway {
    state: Arc<GatewayState>,
    listener: Arc<Mutex<Option<TcpListener>>>,
    address: SocketAddr,
}

impl Gateway {
    /// Prepares the gateway; connections wait in the listener's backlog until [`Gateway::run`].
    ///
    /// # Errors
    /// The listener has no local address, or key and certificate do not fit each other.
    pub fn new(config: GatewayConfig) -> Result<Self, GatewayError> {
        let address = config.listener.local_addr().map_err(GatewayError::ReadAddress)?;
        let (chain, key) = config.server_cert;
        let counters = Arc::new(Counters::default());
        let hard = CancellationToken::new();
        let limits = &config.limits;
        let limiter = |total, min_idle| {
            let (per_address, per_network) = (limits.per_address, limits.per_network);
            ConnectionLimiter::new(LimiterConfig { total, per_address, per_network, min_idle })
        };
        let (pending, portals) = (limiter(limits.pending, limits.hello_time / 5), limits.portal_connections);
        let (portals, callers) = (limiter(portals, Duration::ZERO), limiter(limits.portal_callers, Duration::ZERO));
        let enrollments = limiter(limits.enrollments, Duration::ZERO);
        let stopping = hard.child_token();
        let tls = Tls::new(chain, key)?;
        let peers = config.peers.map(|peers| PeerState::new(peers, &tls)).transpose()?;
        let state = GatewayState {
            domain: config.domain.trim_matches('.').to_ascii_lowercase(),
            routes: Routes::new(config.directory.clone(), &config.limits),
            tls,
            peers,
            registry: Registry::new(&config.limits, hard.clone()),
            notifier: Notifier::new(config.directory),
            counters,
            portal: config.portal,
            link: config.link,
            pending,
            portals,
            callers,
            enrollments,
            limits: config.limits,
            tasks: TaskTracker::new(),
            stopping,
            hard,
        };
        Ok(Self { state: Arc::new(state), listener: Arc::new(Mutex::new(Some(config.listener))), address })
    }

    /// The address the gateway listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `cancel`, then stops accepting, lets what runs finish for at most [`Limits::drain`], and cuts
    /// the rest (streams handed to sinks too).
    ///
    /// # Errors
    /// [`GatewayError::AlreadyRunning`] when called a second time.
    pub async fn run(&self, cancel: CancellationToken) -> Result<(), GatewayError> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let listener = listener.ok_or(GatewayError::AlreadyRunning)?;
        let state = &self.state;
        tokio::select! {
            () = accept::run(state, listener, None) => {}
            () = state.notifier.run(&state.registry) => {}
            () = cancel.cancelled() => {}
        }
        state.stopping.cancel();
        state.tasks.close();
        // The notifier continues meanwhile: links that end now are still reported to the directory.
        tokio::select! {
            _ = timeout(state.limits.drain, state.tasks.wait()) => {}
            () = state.notifier.run(&state.registry) => {}
        }
        state.hard.cancel();
        let _ = timeout(LAST_MOMENT, state.tasks.wait()).await;
        state.notifier.flush(&state.registry).await;
        Ok(())
    }

    /// Cuts everything a node has open here: tunnel, gRPC link, API splices. To call once the node is removed.
    pub fn drop_node(&self, cluster_id: &str, node_id: &str) {
        self.state.routes.forget_node(cluster_id, node_id);
        self.state.registry.drop_node(cluster_id, node_id);
    }

    /// Cuts everything that belongs to a cluster, people's connections too. To call once the cluster is deleted.
    pub fn drop_cluster(&self, cluster_id: &str) {
        self.state.routes.forget_cluster(cluster_id);
        self.state.tls.forget(cluster_id);
        self.state.registry.drop_cluster(cluster_id);
    }

    /// Every cluster that has or had connections here, with those of its nodes that have: what to compare with the store, lest
    /// something go on that was removed.
    pub fn known(&self) -> Vec<(String, Vec<String>)> {
        self.state.registry.known()
    }

    /// Every node that has its tunnel here, with its cluster.
    pub fn linked(&self) -> Vec<(String, String)> {
        self.state.registry.linked()
    }

    /// Tells the directory once more whether a node has its tunnel here: for when its record says something else.
    pub fn report_link(&self, cluster_id: &str, node_id: &str) {
        self.state.notifier.changed(cluster_id, node_id);
    }

    /// Serves a port of one cluster's own until `cancel` or the gateway's end: whatever name a client asks for, or none, it gets to that
    /// cluster's API server, whose certificate must cover the address. The same bounds hold as on the shared port.
    pub fn serve_cluster(&self, listener: TcpListener, label: String, cancel: CancellationToken) {
        let state = self.state.clone();
        self.state.tasks.spawn(async move {
            tokio::select! {
                () = accept::run(&state, listener, Some(label)) => {}
                () = cancel.cancelled() => {}
                () = state.stopping.cancelled() => {}
            }
        });
    }

    /// Cuts the open connections of all clients of a cluster's API server once; they may come again at once. To call after the API server
    /// has begun to refuse one of them: it has authenticated a watch only when that began, and whose a connection is cannot be seen here.
    pub fn drop_clients(&self, cluster_id: &str) {
        self.state.registry.drop_clients(cluster_id);
    }

    /// The counters as they stand.
    pub fn counters(&self) -> Snapshot {
        self.state.counters.snapshot()
    }

    /// The live tunnels of a cluster.
    pub fn links(&self, cluster_id: &str) -> Vec<LinkInfo> {
        self.state.registry.links(cluster_id)
    }

    /// Replaces the gateway's own certificate; handshakes from now on show it.
    ///
    /// # Errors
    /// Key and certificate do not fit each other.
    pub fn set_certificate(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), GatewayError> {
        self.state.tls.set_certificate(chain, key)
    }
}

#[cfg(test)]
mod fuzz_tests;
