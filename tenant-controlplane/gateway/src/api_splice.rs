//! A node's clients to their API server, kubelet and kube-proxy first of all: its agent forwards raw bytes (ALPN
//! `pilothouse-api/1`), which are spliced to the tenant API server after the agent's own handshake. The client's TLS inside
//! stays end to end; who cuts the node's link cuts them.

use std::sync::Arc;

use tracing::debug;

use crate::{Door, conn::TlsStream, counters::Refused, dial::dial, link::Joined, splice::splice};

/// Copies until both sides are done. Without an API server, or beyond the node's cap, the stream is just closed.
pub(crate) async fn serve(door: &Arc<Door>, stream: TlsStream, joined: &Joined) {
    let cluster = &joined.cluster;
    let tenant = door.registry.tenant(&cluster.cluster_id);
    let Some(_place) = tenant.splice_place(&joined.node_id) else {
        return door.counters.refuse(Refused::Full);
    };
    // Whoever has a kubeconfig may come this way too, from a pod.
    let token = tenant.client_token();
    let Some(mut server) = dial(door, cluster).await else {
        return door.counters.refuse(Refused::NotReady);
    };
    let copy = splice(tokio::io::split(stream), server.split(), door.limits.patience(), &|| {});
    if let Some(Err(error)) = token.run_until_cancelled(copy).await {
        debug!(%error, cluster = cluster.cluster_id, "API splice aborted");
    }
}
