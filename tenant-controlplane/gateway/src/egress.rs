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
    directory::ClusterRoute,
    tunnel::{
        client::{Link, OpenedStream, StreamRoom},
        head::{self, ConnectRequest},
        refusal::Refusal,
        registry::Tenant,
        relay::{Front, relay},
        target::{Host, Target},
    },
};

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

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
    let request = match timeout(state.limits.connect_time, head::read(&mut stream)).await {
        Ok(Ok(head)) => head,
        Ok(Err(refusal)) => return answer(state, stream, &refusal).await,
        Err(_) => return answer(state, stream, &Refusal::new(408, "CONNECT timeout")).await,
    };
    match connect(state, &cluster.cluster_id, &tenant, &request).await {
        Ok(opened) => splice(state, stream, request.early, opened).await,
        Err(refusal) => answer(state, stream, &refusal).await,
    }
}

/// A stream to the requested target, or the refusal to answer with.
async fn connect(
    state: &GatewayState,
    cluster: &str,
    tenant: &Tenant,
    request: &ConnectRequest,
) -> Result<OpenedStream, Refusal> {
    let permit = tenant.streams.clone().try_acquire_owned().map_err(|_| {
        let limit = state.limits.streams_per_cluster;
        Refusal::new(503, format!("too many open tunnel streams in this cluster (limit {limit})"))
    })?;
    let link = match tenant.own(&request.target.host) {
        Some(link) => link,
        None => any_link(state, cluster, tenant, &request.target).await?,
    };
    let room = StreamRoom { permit, memory: &tenant.memory };
    let deadline = Instant::now() + state.limits.connect_time;
    match timeout_at(deadline, link.open(&request.target, room)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let seconds = state.limits.connect_time.as_secs_f32();
            Err(Refusal::new(504, format!("node {} did not answer within {seconds} s", link.name)))
        }
    }
}

/// Another node's link for what lies on no node; a node that is away is named, be it asked for by its name or by an address.
async fn any_link(state: &GatewayState, cluster: &str, tenant: &Tenant, target: &Target) -> Result<Arc<Link>, Refusal> {
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
    tenant.any().ok_or_else(nobody)
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

async fn answer(state: &GatewayState, mut stream: TlsStream, refusal: &Refusal) {
    debug!(status = refusal.status, reason = refusal.reason, "CONNECT rejected");
    state.counters.refuse(Refused::Connect);
    let written = async {
        stream.write_all(refusal.response().as_bytes()).await?;
        stream.shutdown().await
    };
    let _ = timeout(state.limits.connect_time, written).await;
}
