//! One live link, seen as the HTTP/2 client it is: opening a stream to something behind the agent.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{Builder, SendRequest},
};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use ipnet::Ipv4Net;
use node_protocol::header::TUNNEL_REASON;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    directory::NodeRoute,
    limits::Limits,
    tunnel::{
        budget::{Charge, ClusterBudget},
        refusal::Refusal,
        target::{Host, Target},
        window::{SEND_BUFFER, Window},
    },
};

/// Window of a whole connection: so large that stalled streams, each held by its own window, never stop the others.
const CONNECTION_WINDOW: u32 = 1 << 30;
/// Frames this small let an echo pass between bulk data.
const FRAME: u32 = 16 * 1024;
/// Frames of a stream we reset may still be under way this long; forgotten sooner, they would count as protocol errors.
const REMEMBER_RESETS: Duration = Duration::from_secs(10);

/// The HTTP/2 settings of the gateway's side.
pub(crate) fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_send_buffer_size(SEND_BUFFER)
        .initial_max_send_streams(limits.streams_per_link)
        .max_concurrent_reset_streams(2 * limits.streams_per_link)
        .reset_stream_duration(REMEMBER_RESETS)
        .enable_push(false);
    builder
}

/// What a link is made of beside its node.
pub(crate) struct LinkParts {
    /// Larger is newer.
    pub(crate) serial: u64,
    /// Cut: the node was removed.
    pub(crate) closed: CancellationToken,
    /// No new streams; ends when the last one does.
    pub(crate) draining: CancellationToken,
    /// Streams at most.
    pub(crate) limit: usize,
    /// The HTTP/2 client.
    pub(crate) sender: SendRequest<Bytes>,
    /// The receive window of its streams.
    pub(crate) window: Arc<Window>,
}

/// A live link.
pub(crate) struct Link {
    /// The node's id.
    pub(crate) node_id: String,
    /// The node's Kubernetes name, lower-case.
    pub(crate) name: String,
    /// Larger is newer.
    pub(crate) serial: u64,
    /// Cancelled when the node is removed.
    pub(crate) closed: CancellationToken,
    /// The receive window of its streams.
    pub(crate) window: Arc<Window>,
    draining: CancellationToken,
    pod_cidr: Ipv4Net,
    sender: SendRequest<Bytes>,
    slots: Arc<Semaphore>,
    limit: usize,
}

/// A stream to a target; dropping it resets the stream and releases its permits.
pub(crate) struct OpenedStream {
    /// Towards the target.
    pub(crate) send: SendStream<Bytes>,
    /// From the target.
    pub(crate) recv: RecvStream,
    /// Its permits under the link's and the cluster's limits.
    pub(crate) permits: [OwnedSemaphorePermit; 2],
    /// The memory it may hold.
    pub(crate) charge: Arc<Charge>,
    /// The window that it has with the link's other streams.
    pub(crate) window: Arc<Window>,
}

/// What a new stream takes of its cluster's.
pub(crate) struct StreamRoom<'a> {
    /// Its permit under the cluster's limit.
    pub(crate) permit: OwnedSemaphorePermit,
    /// What the cluster's streams may hold.
    pub(crate) memory: &'a Arc<ClusterBudget>,
}

impl Link {
    /// A link whose handshake is done.
    pub(crate) fn new(node_id: String, node: NodeRoute, parts: LinkParts) -> Self {
        Self {
            node_id,
            name: node.name.to_ascii_lowercase(),
            pod_cidr: node.pod_cidr,
            serial: parts.serial,
            closed: parts.closed,
            draining: parts.draining,
            slots: Arc::new(Semaphore::new(parts.limit)),
            limit: parts.limit,
            sender: parts.sender,
            window: parts.window,
        }
    }

    /// Whether this host is the link's own node or one of its pods.
    pub(crate) fn owns(&self, host: &Host) -> bool {
        match host {
            Host::Node(name) => *name == self.name,
            Host::Address(address) => self.pod_cidr.contains(address),
        }
    }

    /// Streams open now.
    pub(crate) fn streams(&self) -> usize {
        self.limit - self.slots.available_permits()
    }

    /// Takes no new streams from now on.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
    }

    /// Ready once the link drains and its streams have ended, or `limit` later.
    pub(crate) async fn drained(&self, limit: Duration) {
        self.draining.cancelled().await;
        let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let _ = timeout(limit, self.slots.acquire_many(all)).await;
    }

    /// Opens a stream to `target`. The caller bounds the time.
    pub(crate) async fn open(
        &self,
        target: &Target,
        StreamRoom { permit, memory }: StreamRoom<'_>,
    ) -> Result<OpenedStream, Refusal> {
        let slot = self.slot()?;
        let charge = self.window.charge(memory).map_err(|short| Refusal::new(503, short.reason()))?;
        let mut sender = self.sender.clone().ready().await.map_err(|_| self.lost())?;
        let (reply, send) = sender.send_request(request(target)?, false).map_err(|_| self.lost())?;
        let (head, recv) = reply.await.map_err(|error| self.broken(&error))?.into_parts();
        match head.status {
            StatusCode::OK => {
                let (permits, window) = ([slot, permit], self.window.clone());
                Ok(OpenedStream { send, recv, permits, charge, window })
            }
            status => Err(written(status, &head.headers)),
        }
    }

    /// A permit under this link's limit: ours, or the agent's SETTINGS_MAX_CONCURRENT_STREAMS if that is lower (beyond it
    /// HTTP/2 would wait in silence).
    fn slot(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let limit = self.limit.min(self.sender.current_max_send_streams());
        let full = || Refusal::new(503, format!("too many open tunnel streams to node {} (limit {limit})", self.name));
        if self.streams() >= limit {
            return Err(full());
        }
        self.slots.clone().try_acquire_owned().map_err(|_| full())
    }

    fn lost(&self) -> Refusal {
        Refusal::new(503, format!("node {} has no tunnel: the connection to its agent was lost", self.name))
    }

    fn broken(&self, error: &h2::Error) -> Refusal {
        match error.reason() {
            Some(reason) if error.is_reset() => {
                Refusal::new(502, format!("the agent of node {} reset the stream: {reason}", self.name))
            }
            _ => self.lost(),
        }
    }
}

fn request(target: &Target) -> Result<Request<()>, Refusal> {
    let unreadable = || Refusal::new(400, format!("{target} is not a host:port"));
    let uri = Uri::try_from(target.to_string()).map_err(|_| unreadable())?;
    Request::builder().method(Method::CONNECT).uri(uri).body(()).map_err(|_| unreadable())
}

/// The agent's own words.
fn written(status: StatusCode, headers: &HeaderMap) -> Refusal {
    let reason = headers.get(TUNNEL_REASON).and_then(|value| value.to_str().ok());
    let status = if status.is_client_error() || status.is_server_error() { status } else { StatusCode::BAD_GATEWAY };
    Refusal::new(status.as_u16(), reason.or(status.canonical_reason()).unwrap_or("refused by the agent"))
}
