//! In-cluster clients to their API server: a node's agent forwards raw bytes (ALPN `pilothouse-api/1`), which are
//! spliced to the tenant API server after the agent's own handshake. The client's TLS inside stays end to end.

use std::sync::Arc;

use tracing::debug;

use crate::{Door, conn::TlsStream, counters::Refused, dial::dial, directory::ClusterRoute, splice::splice};

/// Copies until both sides are done. Without an API server, or beyond the cluster's cap, the stream is just closed.
pub(crate) async fn serve(door: &Arc<Door>, stream: TlsStream, cluster: &ClusterRoute) {
    let tenant = door.registry.tenant(&cluster.cluster_id);
    let Ok(_slot) = tenant.splices.clone().try_acquire_owned() else {
        return door.counters.refuse(Refused::Full);
    };
    let Some(mut server) = dial(door, cluster).await else {
        return door.counters.refuse(Refused::NotReady);
    };
    if let Err(error) = splice(tokio::io::split(stream), server.split(), door.limits.patience(), &|| {}).await {
        debug!(%error, cluster = cluster.cluster_id, "API splice broke off");
    }
}
