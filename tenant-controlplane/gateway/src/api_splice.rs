//! A node's clients to their API server, kubelet and kube-proxy first of all: its agent forwards raw bytes (ALPN
//! `pilothouse-api/1`), which are spliced to the tenant API server after the agent's own handshake. The client's TLS inside
//! stays end to end; who cuts the node's link cuts them.

use std::sync::Arc;

use tracing::debug;

use crate::{GatewayState, conn::TlsStream, counters::Refused, dial::dial, link::NodeIdentity, splice::splice};

/// Copies until both sides are done. Without an API server, or beyond the node's cap, the stream is just closed.
pub(crate) async fn serve(state: &Arc<GatewayState>, stream: TlsStream, identity: &NodeIdentity) {
    let cluster = &identity.cluster;
    let tenant = state.registry.tenant(&cluster.cluster_id);
    let Some(_permit) = tenant.splice_permit(&identity.node_id) else {
        return state.counters.refuse(Refused::Full);
    };
    // Whoever has a kubeconfig may come this way too, from a pod.
    let token = tenant.client_token();
    let Some(mut server) = dial(state, cluster).await else {
        return state.counters.refuse(Refused::NotReady);
    };
    let copy = splice(tokio::io::split(stream), server.split(), state.limits.splice_timeouts(), &|| {});
    if let Some(Err(error)) = token.run_until_cancelled(copy).await {
        debug!(%error, cluster = cluster.cluster_id, "API splice aborted");
    }
}
