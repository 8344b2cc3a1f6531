//! What node agents talk to: enrollment with a token, and the node link with a certificate.
//!
//! The gateway has ended TLS. Whoever comes without a certificate gets enrollment and nothing else; whoever comes with one is that node,
//! named by a [`Caller`] in the request's extensions, and gets its link. Nothing an agent says about who it is counts.

mod bounds;
mod bucket;
mod certificates;
mod desired;
mod enroll;
mod fetch;
mod packed;
mod refusal;
mod renew;
mod report;
mod signers;
#[cfg(test)]
mod tests;
mod watch;
mod workers;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use migrations::{Node, Store, StoreError};
use node_protocol::enrollment_server::{Enrollment, EnrollmentServer};
use node_protocol::node_link_server::{NodeLink, NodeLinkServer};
use node_protocol::{
    Certificates, Chunk, EnrollReply, EnrollRequest, FetchRequest, NodeConfig, NodeReport, RenewRequest, ReportReply,
    WatchRequest,
};
use tenant_controlplane::id::{ClusterId, NodeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tower::ServiceBuilder;
use tower::ServiceExt;

use crate::config::InstallationInfo;
use crate::parts::Parts;
use crate::trace::GrpcTrace;

use bounds::Method;

/// The most bytes of one message from an agent.
const MESSAGE_LIMIT: usize = 256 * 1024;
/// What may come before it is read: of a call, and of a connection. Agents send little.
const WINDOWS: (u32, u32) = (64 << 10, 256 << 10);
/// Bytes that wait to be sent, each call; a chunk of a part is more and is sent whole.
const SEND_BUFFER: usize = 64 << 10;
/// Bytes of a call's header fields.
const HEADERS: u32 = 16 << 10;
/// Calls that were reset before they were looked at (CVE-2023-44487), before the connection ends.
const RESETS: usize = 16;
/// How long a machine without a certificate may be connected without having asked to be enrolled.
const FIRST_WORD: std::time::Duration = std::time::Duration::from_secs(10);
/// Threads that sign certificates, and how many wait for one.
const SIGNERS: (usize, usize) = (2, 64);
const PING_EVERY: std::time::Duration = std::time::Duration::from_secs(20);
/// Calls on one connection at a time: an agent has a watch, a report, a renewal and three fetches.
const CALLS: u32 = 16;

/// Who calls over the node link, as its certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The cluster whose CA signed it.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

/// Both services.
#[derive(Clone)]
pub struct Agents {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    parts: Arc<dyn Parts>,
    installation: Arc<InstallationInfo>,
    bounds: bounds::Bounds,
    signers: signers::Signers,
    signing: workers::Workers,
    packed: packed::Packed,
}

/// Ends the connection that a call came over, in the call's extensions.
#[derive(Clone)]
struct Cut(CancellationToken);

/// Notes that a machine asked to be enrolled, in the call's extensions.
#[derive(Clone)]
struct EnrollmentRequested(CancellationToken);

type Reply<T> = Result<Response<T>, Status>;
type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Agents {
    /// Services over a store, without an engine.
    pub fn new(store: Store, parts: Arc<dyn Parts>, installation: Arc<InstallationInfo>) -> Self {
        let bounds = bounds::Bounds::default();
        let (signing, signers) = (workers::Workers::new(SIGNERS.0, SIGNERS.1), signers::Signers::default());
        let packed = packed::Packed::new(&parts.keep_dir());
        Self { inner: Arc::new(Inner { store, parts, installation, bounds, signers, signing, packed }) }
    }

    /// Enrollment, for connections without a client certificate.
    pub fn enrollment(&self) -> EnrollmentServer<Self> {
        EnrollmentServer::new(self.clone()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// The node link, for connections whose requests carry a [`Caller`].
    pub fn node_link(&self) -> NodeLinkServer<Self> {
        NodeLinkServer::new(self.clone()).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// Serves one connection (HTTP/2, TLS ended): enrollment without a caller, the node link with one. Returns when it is over.
    pub async fn serve<I>(&self, io: I, caller: Option<Caller>, cancel: CancellationToken)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let cut = cancel.child_token();
        match caller {
            None => {
                let requested = EnrollmentRequested(CancellationToken::new());
                let enrollment_requested = requested.0.clone();
                let note = move |mut request: http::Request<_>| {
                    request.extensions_mut().insert(requested.clone());
                    request
                };
                let service = ServiceBuilder::new().map_request(note).service(GrpcTrace(self.enrollment()));
                let served = serve(io, service.boxed_clone(), cut);
                until_silent(served, enrollment_requested, FIRST_WORD).await;
            }
            Some(caller) => {
                let link = Cut(cut.clone());
                let name = move |mut request: http::Request<_>| {
                    request.extensions_mut().insert(caller);
                    request.extensions_mut().insert(link.clone());
                    request
                };
                let service = ServiceBuilder::new().map_request(name).service(GrpcTrace(self.node_link()));
                serve(io, service.boxed_clone(), cut).await;
            }
        }
    }

    /// Counts a call of this node.
    fn count(&self, node: NodeId, method: bounds::Method) -> Result<(), Status> {
        let counted = self.inner.bounds.call(node, method, std::time::Instant::now());
        counted.map_err(|wait| {
            let limit = method.limit();
            Status::resource_exhausted(format!(
                "too many calls of {method:?} by this node: {} at once, then one every {} s; the next in {} s",
                limit.at_once,
                limit.every.as_secs(),
                wait.as_secs() + 1
            ))
        })
    }

    /// The calling node's row. The call is counted before anything is read: whoever was removed has a certificate still.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a certificate, `RESOURCE_EXHAUSTED` when it called too often, `PERMISSION_DENIED` when the node is of
    /// another cluster, and as [`refusal`] says when it has no row.
    async fn node<T>(&self, request: &Request<T>, method: Method) -> Result<Node, Status> {
        let caller = *request
            .extensions()
            .get::<Caller>()
            .ok_or_else(|| Status::unauthenticated("show the node's certificate"))?;
        self.count(caller.node, method)?;
        match self.inner.store.nodes().load(caller.node).await {
            Ok(node) if node.cluster == caller.cluster => Ok(node),
            Ok(_) => Err(Status::permission_denied("the certificate names a node of another cluster")),
            Err(StoreError::NotFound { .. }) => Err(refusal::absent(&self.inner.store, caller).await),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// The same for a node that was not removed: no certificate is made after the tombstone.
    async fn active_node<T>(&self, request: &Request<T>, method: Method) -> Result<Node, Status> {
        let node = self.node(request, method).await?;
        if !node.removed && node.deletion_requested_at.is_none() {
            return Ok(node);
        }
        let caller = Caller { cluster: node.cluster, node: node.id };
        let removed = refusal::removal(&self.inner.store, caller).await.map_err(|error| unavailable(&error))?;
        removed.map_or(Ok(node), Err)
    }
}

/// For agents: they try again. For the log: why.
fn unavailable(error: &dyn std::error::Error) -> Status {
    tracing::warn!(error = crate::chain(error), "serve an agent");
    Status::unavailable("the platform cannot answer at the moment: try again")
}

/// Serves a machine that is to say in time what it came for.
async fn until_silent(served: impl Future<Output = ()>, requested: CancellationToken, limit: std::time::Duration) {
    let silent = async {
        if tokio::time::timeout(limit, requested.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = served => {}
        () = silent => tracing::debug!("a machine connected and did not ask to be enrolled"),
    }
}

type Body = hyper::body::Incoming;
type Boxed =
    tower::util::BoxCloneService<http::Request<Body>, http::Response<tonic::body::Body>, std::convert::Infallible>;

async fn serve<I>(io: I, service: Boxed, cancel: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY);
    builder.max_concurrent_streams(CALLS).max_send_buf_size(SEND_BUFFER).max_header_list_size(HEADERS);
    builder.max_pending_accept_reset_streams(RESETS).max_local_error_reset_streams(RESETS);
    builder.initial_stream_window_size(WINDOWS.0).initial_connection_window_size(WINDOWS.1);
    let connection = builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // A watch never ends by itself.
            tokio::time::timeout(std::time::Duration::from_secs(1), connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = crate::chain(&error), "an agent's connection ended");
    }
}

#[tonic::async_trait]
impl Enrollment for Agents {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Reply<EnrollReply> {
        if let Some(EnrollmentRequested(requested)) = request.extensions().get() {
            requested.cancel();
        }
        enroll::enroll(self, request.into_inner()).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl NodeLink for Agents {
    type WatchStream = BoxStream<NodeConfig>;
    type FetchStream = BoxStream<Chunk>;

    async fn watch(&self, request: Request<WatchRequest>) -> Reply<Self::WatchStream> {
        let node = self.node(&request, Method::Watch).await?;
        let caller = Caller { cluster: node.cluster, node: node.id };
        Ok(Response::new(watch::watch(self.clone(), caller, request.into_inner().known_generation)))
    }

    async fn report(&self, request: Request<NodeReport>) -> Reply<ReportReply> {
        let node = self.node(&request, Method::Report).await?;
        report::report(self, node, request.into_inner()).await.map(Response::new)
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Reply<Self::FetchStream> {
        let node = self.active_node(&request, Method::Fetch).await?;
        let cut = request.extensions().get().map_or_else(CancellationToken::new, |Cut(cut)| cut.clone());
        fetch::fetch(self, &node, cut, request.into_inner()).await.map(Response::new)
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Reply<Certificates> {
        let node = self.active_node(&request, Method::Renew).await?;
        renew::renew(self, &node, request.into_inner()).await.map(Response::new)
    }
}
