//! A node's clients to their API server, kubelet and kube-proxy first of all: its agent forwards raw bytes (ALPN
//! `pilothouse-api/1`), which are spliced to the tenant API server after the agent's own handshake. The client's TLS inside
//! stays end to end; who cuts the node's link cuts them.

use std::sync::Arc;

use tracing::debug;

use crate::{Door, conn::TlsStream, counters::Refused, dial::dial, link::Joined, splice::splice};

/// Copies until both sides are done. Without an API server, or beyond the node's cap, the stream is just closed.
pub(crate) async fn serve(door: &Arc<Door>, stream: TlsStream, joined: &Joined) {
    let cluster = &joined.cluster;
    let Some(_place) = door.registry.tenant(&cluster.cluster_id).splice_place(&joined.node_id) else {
        return door.counters.refuse(Refused::Full);
    };
    let Some(mut server) = dial(door, cluster).await else {
        return door.counters.refuse(Refused::NotReady);
    };
    if let Err(error) = splice(tokio::io::split(stream), server.split(), door.limits.patience(), &|| {}).await {
        debug!(%error, cluster = cluster.cluster_id, "API splice broke off");
    }
}
