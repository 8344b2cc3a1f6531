//! The API server's egress selector: TLS with the cluster's egress certificate, then one CONNECT per connection.
//!
//! kube-apiserver sets no deadline on the reply, so every CONNECT is answered; the reason phrase of an error is what
//! kubectl's user reads. Once a stream stands, bytes go both ways; a lost stream drops the front without close_notify,
//! so that the API server sees an abort and not an end.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use crate::{
    GatewayState,
    accept::InboundConnection,
    conn::TlsStream,
    counters::{Kind, Refused},
    directory::{ClusterRoute, RemoteLink},
    forward,
    tunnel::{
        client::{Link, OpenedStream, StreamRoom},
        head::{self, ConnectRequest},
        refusal::Refusal,
        registry::Tenant,
        relay::{Front, relay},
        target::{Host, Target},
    },
};

/// The answer after which bytes go both ways.
pub(crate) const ESTABLISHED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// Serves one egress connection to its end.
pub(crate) async fn serve(state: &Arc<GatewayState>, inbound: InboundConnection, cluster: ClusterRoute) {
    let config = match state.tls.egress(&cluster) {
        Ok(config) => config,
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, cluster = cluster.cluster_id, "link trust unusable");
            return inbound.refuse(state, Refused::NotReady).await;
        }
    };
    let Some(mut stream) = inbound.finish(state, config).await else { return };
    let tenant = state.registry.tenant(&cluster.cluster_id);
    stream.get_mut().0.bind(tenant.token.clone(), state.live(Kind::Egress));
    let request = match request(state, &mut stream).await {
        Ok(request) => request,
        Err(refusal) => return answer(state, stream, &refusal).await,
    };
    let others = Others::Asked;
    answer_connect(state, stream, Connect { cluster: &cluster.cluster_id, tenant: &tenant, request, others }).await;
}

/// Reads the CONNECT; a client that sends none is answered too.
pub(crate) async fn request(state: &GatewayState, stream: &mut TlsStream) -> Result<ConnectRequest, Refusal> {
    let late = |_| Err(Refusal::new(408, "CONNECT timeout"));
    timeout(state.limits.connect_time, head::read(stream)).await.unwrap_or_else(late)
}

/// A CONNECT to answer.
pub(crate) struct Connect<'a> {
    /// The cluster's id.
    pub(crate) cluster: &'a str,
    /// What it has open here.
    pub(crate) tenant: &'a Tenant,
    /// What is asked for.
    pub(crate) request: ConnectRequest,
    /// What about nodes that are linked elsewhere.
    pub(crate) others: Others,
}

/// Whether other gateways are asked for what no link here leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// They are: the request comes from an API server.
    Asked,
    /// They are not: the request comes from one of them, and travels once.
    NotAsked,
}

/// What a target is reached by.
enum Route {
    Own(Arc<Link>),
    Other(RemoteLink),
}

/// Opens the stream that is asked for and serves it to its end, or answers why there is none.
pub(crate) async fn answer_connect(state: &GatewayState, stream: TlsStream, connect: Connect<'_>) {
    let Connect { cluster, tenant, request, others } = connect;
    let Ok(permit) = tenant.streams.clone().try_acquire_owned() else {
        let limit = state.limits.streams_per_cluster;
        let full = format!("too many open tunnel streams in this cluster (limit {limit})");
        return answer(state, stream, &Refusal::new(503, full)).await;
    };
    match route(state, cluster, tenant, &request.target, others).await {
        Ok(Route::Own(link)) => {
            let room = StreamRoom { permit, memory: &tenant.memory };
            match open(state, &link, &request.target, room).await {
                Ok(opened) => splice(state, stream, request.early, opened).await,
                Err(refusal) => answer(state, stream, &refusal).await,
            }
        }
        Ok(Route::Other(remote)) => match forward::open(state, &remote, cluster, tenant, &request.target).await {
            Ok(opened) => forward::splice(Front { stream, early: request.early }, opened).await,
            Err(refusal) => answer(state, stream, &refusal).await,
        },
        Err(refusal) => answer(state, stream, &refusal).await,
    }
}

/// A stream to the requested target, or the refusal to answer with.
async fn open(
    state: &GatewayState,
    link: &Link,
    target: &Target,
    room: StreamRoom<'_>,
) -> Result<OpenedStream, Refusal> {
    let deadline = Instant::now() + state.limits.connect_time;
    match timeout_at(deadline, link.open(target, room)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let seconds = state.limits.connect_time.as_secs_f32();
            Err(Refusal::new(504, format!("node {} did not answer within {seconds} s", link.name)))
        }
    }
}

/// The link of the node that the target is or lies on, here or at another gateway, and any for what lies on no node.
async fn route(
    state: &GatewayState,
    cluster: &str,
    tenant: &Tenant,
    target: &Target,
    others: Others,
) -> Result<Route, Refusal> {
    if let Some(link) = tenant.own(&target.host) {
        return Ok(Route::Own(link));
    }
    let remote = if others == Others::Asked { forward::remote_links(state, cluster).await } else { Vec::new() };
    if let Some(link) = remote.iter().find(|link| link.owns(&target.host)) {
        return Ok(Route::Other(link.clone()));
    }
    any_route(state, cluster, tenant, target, remote).await
}

/// Another node's link for what lies on no node; a node that is away is named, be it asked for by its name or by an address.
async fn any_route(
    state: &GatewayState,
    cluster: &str,
    tenant: &Tenant,
    target: &Target,
    remote: Vec<RemoteLink>,
) -> Result<Route, Refusal> {
    let away = match &target.host {
        Host::Node(name) => Some(name.clone()),
        Host::Address(address) => state.routes.owner(cluster, *address).await.unwrap_or_else(|error| {
            debug!(error = &error as &dyn std::error::Error, "node lookup by address failed");
            None
        }),
    };
    if let Some(name) = away {
        return Err(Refusal::new(503, format!("node {name} has no tunnel: agent not connected")));
    }
    let nobody = || Refusal::new(503, format!("cannot reach {target}: no node of this cluster has a tunnel"));
    let own = tenant.any().map(Route::Own);
    own.or_else(|| remote.into_iter().next().map(Route::Other)).ok_or_else(nobody)
}

async fn splice(state: &GatewayState, mut stream: TlsStream, early: Bytes, opened: OpenedStream) {
    if stream.write_all(ESTABLISHED).await.is_err() || stream.flush().await.is_err() {
        return;
    }
    let _live = state.counters.open(Kind::Stream);
    if let Err(broken) = relay(Front { stream, early }, opened, state.limits.half_closed).await {
        debug!(error = &broken as &dyn std::error::Error, "tunnel stream aborted");
    }
}

pub(crate) async fn answer(state: &GatewayState, mut stream: TlsStream, refusal: &Refusal) {
    debug!(status = refusal.status, reason = refusal.reason, "CONNECT rejected");
    state.counters.refuse(Refused::Connect);
    let written = async {
        stream.write_all(refusal.response().as_bytes()).await?;
        stream.shutdown().await
    };
    let _ = timeout(state.limits.connect_time, written).await;
}
