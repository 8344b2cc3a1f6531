//! The node link: one mutual-TLS identity towards the gateway, spoken as gRPC (orders, reports, parts, renewals) and, under other
//! ALPN names, as tunnel and API bytes.
//!
//! Everything here survives a gateway that goes away: the channel dials anew by itself, the watch is taken up again after a pause
//! with jitter, a report that fails is simply overtaken by the next one.

mod report;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use node_linux::files::FileError;
use node_linux::{Backoff, describe};
use node_protocol::node_link_client::NodeLinkClient;
use node_protocol::refusal::Reason;
use node_protocol::{NodeConfig, NodeReport, Refusal, Removal, RenewRequest, WatchRequest, alpn, server_name};
use rustls::ClientConfig;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::connect::{ConnectError, Dialer, tls_config};
use crate::pki::{self, PkiError, Store};

pub use report::Told;

/// The heartbeat.
const REPORT: Duration = Duration::from_secs(10);

/// How often the certificates' age is looked at; half to one and a half of it, so that agents do not come together.
const AGE: Duration = Duration::from_secs(60);

/// The longest pause after the platform said that it does not serve this node: a database is not put right within seconds.
const REFUSED: Duration = Duration::from_secs(300);

/// What a node does of which the platform knows nothing.
const UNKNOWN: &str = "; everything on this machine goes on as it is, and the platform is asked again. If its database was restored and this \
                       node is not to come back: `pilothouse-node reset --force`, then the join command from the portal";

/// How long one renewal may take.
const RENEWAL: Duration = Duration::from_secs(30);

/// A link that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The gateway could not be reached or trusted.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The node's certificate could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// New keys or certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The certificate by which the platform knows this machine is no good any more.
    #[error(
        "this node's certificate for the platform ended at {ended} (this machine's clock says {now}); if the clock is right, run \
         `pilothouse-node reset --force` and then the join command from the portal"
    )]
    Ended {
        /// When, UTC.
        ended: OffsetDateTime,
        /// What this machine takes for now.
        now: OffsetDateTime,
    },
    /// The platform said no, or was not reached.
    #[error("{}", words(.0))]
    Status(Box<tonic::Status>),
}

impl LinkError {
    /// True when the same call cannot succeed soon.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Ended { .. } => true,
            _ => self.refusal().is_some(),
        }
    }

    /// Why the platform does not serve this node, if that is what it said. Nothing follows from the text of an answer.
    fn refusal(&self) -> Option<Reason> {
        match self {
            Self::Status(status) => Refusal::of(status),
            _ => None,
        }
    }
}

/// What the platform said.
#[derive(Debug)]
pub enum Event {
    /// A configuration, to be put before the fence.
    Config(Box<NodeConfig>),
    /// The platform has it in writing that a node was removed.
    Removed(Removal),
    /// How the link does, for people.
    Linked(String),
}

#[derive(Debug, Clone)]
struct Peer {
    dialer: Dialer,
    name: String,
    ca_pem: String,
}

/// The link of one node. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    peer: Arc<Mutex<Peer>>,
    configs: Arc<Mutex<HashMap<Vec<u8>, Arc<ClientConfig>>>>,
    pki: Store,
    channel: Channel,
}

fn peer(config: &NodeConfig) -> Result<Peer, ConnectError> {
    let name = server_name::link(&config.label, &config.domain);
    Ok(Peer { dialer: Dialer::from_env(&config.server)?, name, ca_pem: config.platform_ca.clone() })
}

impl Link {
    /// A link as the configuration says; nothing is dialled yet. Must be called inside a tokio runtime.
    pub fn new(config: &NodeConfig, pki: Store) -> Result<Self, ConnectError> {
        let peer = Arc::new(Mutex::new(peer(config)?));
        let configs = Arc::default();
        let channel = channel(Dial { peer: peer.clone(), configs: Arc::clone(&configs), pki: pki.clone() })?;
        Ok(Self { peer, configs, pki, channel })
    }

    /// Follows a new configuration's address, names and CA; live connections stay.
    pub fn follow(&self, config: &NodeConfig) -> Result<(), ConnectError> {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = peer(config)?;
        self.forget_tls();
        Ok(())
    }

    fn forget_tls(&self) {
        self.configs.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The gateway's `host:port`.
    pub fn server(&self) -> String {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner).dialer.server().to_owned()
    }

    /// A gRPC client; dials when it is used.
    pub fn client(&self) -> NodeLinkClient<Channel> {
        NodeLinkClient::new(self.channel.clone())
    }

    /// A connection of its own under another ALPN name.
    pub async fn dial(&self, alpn: &[u8]) -> Result<TlsStream<TcpStream>, LinkError> {
        self.dialling().tls(alpn).await
    }

    fn dialling(&self) -> Dial {
        Dial { peer: Arc::clone(&self.peer), configs: Arc::clone(&self.configs), pki: self.pki.clone() }
    }

    /// Watches for configurations until stopped.
    pub async fn watch(self, known: u64, events: mpsc::Sender<Event>, stop: CancellationToken) {
        let (mut backoff, mut refusals) = (Backoff::default(), Backoff::up_to(REFUSED));
        let mut known = known;
        loop {
            let heard = tokio::select! {
                heard = self.listen(&mut known, &events, &mut backoff) => heard,
                () = stop.cancelled() => return,
            };
            let refusal = heard.as_ref().err().and_then(LinkError::refusal);
            let pause = if refusal.is_some() { refusals.pause() } else { backoff.pause() };
            if refusal.is_none() {
                refusals.reset();
            }
            if let Err(error) = heard {
                let what_then = if let Some(Reason::Unknown(_)) = refusal { UNKNOWN } else { "" };
                let why = format!("{}{what_then}", describe(&error));
                tracing::warn!(reason = why, "no link; trying again");
                let _ = events.send(Event::Linked(format!("down: {why}"))).await;
            }
            if let Some(Reason::Removal(removal)) = refusal {
                let _ = events.send(Event::Removed(removal)).await;
            }
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn listen(
        &self,
        known: &mut u64,
        events: &mpsc::Sender<Event>,
        backoff: &mut Backoff,
    ) -> Result<(), LinkError> {
        self.dialling().still_good(OffsetDateTime::now_utc())?;
        let request = WatchRequest { known_generation: *known };
        let mut stream = self.client().watch(request).await.map_err(said)?.into_inner();
        tracing::info!(server = self.server(), "linked");
        while let Some(mut config) = stream.message().await.map_err(said)? {
            backoff.reset();
            // No part of what is configured: the same configuration is the same in another operation.
            let traceparent = std::mem::take(&mut config.traceparent);
            if let Some(trace_id) = traceparent.get(3..35) {
                tracing::info!(generation = config.generation, trace_id, "configuration of a traced operation");
            }
            let _ = events.send(Event::Linked(format!("up, to {}", self.server()))).await;
            *known = config.generation;
            if events.send(Event::Config(Box::new(config))).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Reports every ten seconds, and at once when something changed, until stopped.
    pub async fn report(self, told: Told, stop: CancellationToken) {
        let mut changes = told.board.changes();
        loop {
            if let Err(error) = self.report_once(told.report()).await {
                tracing::debug!(error = describe(&error), "report not delivered");
            }
            tokio::select! {
                () = tokio::time::sleep(REPORT) => {}
                _ = changes.changed() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Delivers one report.
    pub async fn report_once(&self, report: NodeReport) -> Result<(), LinkError> {
        let mut request = tonic::Request::new(report);
        request.set_timeout(Duration::from_secs(10));
        let sent = self.client().report(request).await;
        sent.map(drop).map_err(said)
    }

    /// Renews the certificates in the second half of the shortest one's life, until stopped; and at once while kubelet's does not
    /// name the node's address, as those of earlier agents do not.
    pub async fn renew(self, node_name: String, address: Ipv4Addr, stop: CancellationToken) {
        let mut named = self.pki.serves(address);
        loop {
            let look = async {
                if named {
                    return self.renew_if_due(&node_name, OffsetDateTime::now_utc()).await;
                }
                self.renew_now(&node_name).await.map(|()| true)
            };
            let Some(looked) = stop.run_until_cancelled(look).await else { return };
            match looked {
                Ok(false) => {}
                Ok(true) => {
                    named = true; // or the platform does not: asking again would change nothing
                    tracing::info!("certificates renewed");
                }
                Err(error) => {
                    tracing::warn!(error = describe(&error), "certificates not renewed; trying again in a minute")
                }
            }
            let pause = AGE.mul_f64(0.5 + rand::random::<f64>());
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// True when kubelet or kube-proxy could not use its certificate at `now`.
    pub fn has_ended(&self, now: OffsetDateTime) -> bool {
        self.pki.has_ended(now)
    }

    /// Renews the certificates if that is due at `now`. True when it did.
    pub async fn renew_if_due(&self, node_name: &str, now: OffsetDateTime) -> Result<bool, LinkError> {
        if !self.pki.renewal_due(now) {
            return Ok(false);
        }
        self.renew_now(node_name).await.map(|()| true)
    }

    async fn renew_now(&self, node_name: &str) -> Result<(), LinkError> {
        let pending = self.pki.prepare(node_name)?;
        let [link_csr, kubelet_csr, proxy_csr, serving_csr] = pending.requests.clone();
        let request = RenewRequest { link_csr, kubelet_csr, proxy_csr, serving_csr };
        let mut request = tonic::Request::new(request);
        request.set_timeout(RENEWAL);
        let reply = self.client().renew(request).await.map_err(said)?;
        self.pki.accept(&pending, &reply.into_inner())?;
        self.forget_tls();
        Ok(())
    }
}

fn said(status: tonic::Status) -> LinkError {
    LinkError::Status(Box::new(status))
}

/// A status that has a cause never was an answer: the cause says more.
fn words(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(cause) => describe(cause),
        None => format!("the platform answered: {} ({:?})", status.message(), status.code()),
    }
}

/// What a new connection needs.
#[derive(Clone)]
struct Dial {
    peer: Arc<Mutex<Peer>>,
    configs: Arc<Mutex<HashMap<Vec<u8>, Arc<ClientConfig>>>>,
    pki: Store,
}

impl Dial {
    async fn tls(&self, alpn: &[u8]) -> Result<TlsStream<TcpStream>, LinkError> {
        self.still_good(OffsetDateTime::now_utc())?;
        let peer = self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let config = self.config(&peer.ca_pem, alpn)?;
        Ok(peer.dialer.tls(config, &peer.name).await?)
    }

    /// An ended certificate is not even shown: the gateway could only refuse it, in words that nobody here sees.
    fn still_good(&self, now: OffsetDateTime) -> Result<(), LinkError> {
        let (certificate, _) = self.pki.link()?;
        match pki::lifetime(&certificate) {
            Some((_, ended)) if ended <= now => {
                let second = |time: OffsetDateTime| time.replace_nanosecond(0).unwrap_or(time);
                Err(LinkError::Ended { ended: second(ended), now: second(now) })
            }
            _ => Ok(()),
        }
    }

    /// One TLS client per ALPN name, kept so that sessions are resumed; renewed certificates make new ones.
    fn config(&self, ca_pem: &str, alpn: &[u8]) -> Result<Arc<ClientConfig>, LinkError> {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = configs.get(alpn) {
            return Ok(Arc::clone(config));
        }
        let (certificate, key) = self.pki.link()?;
        let config = tls_config(ca_pem, Some((&certificate, &key)), alpn)?;
        configs.insert(alpn.to_vec(), Arc::clone(&config));
        Ok(config)
    }
}

fn channel(dial: Dial) -> Result<Channel, ConnectError> {
    let name = dial.peer.lock().unwrap_or_else(PoisonError::into_inner).name.clone();
    let endpoint = Endpoint::from_shared(format!("http://{name}")).map_err(|_| ConnectError::Name(name))?;
    let endpoint = endpoint
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        // What has arrived and waits for the disk lies in memory: 256 KiB, packed, for each part on its way.
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20);
    let connector = service_fn(move |_| {
        let dial = dial.clone();
        async move { dial.tls(alpn::GRPC).await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

#[cfg(test)]
#[path = "link_tests.rs"]
pub(crate) mod tests;
