//! In-cluster clients to their API server: a node's agent forwards raw bytes (ALPN `pilothouse-api/1`), which are
//! spliced to the tenant API server after the agent's own handshake. The client's TLS inside stays end to end.

use std::sync::Arc;

use tokio::io::copy_bidirectional_with_sizes;
use tracing::debug;

use crate::{
    Door,
    conn::TlsStream,
    counters::Refused,
    directory::ClusterRoute,
    passthrough::{BUFFER, dial},
};

/// Copies until both sides are done. Without an API server, or beyond the cluster's cap, the stream is just closed.
pub(crate) async fn serve(door: &Arc<Door>, mut stream: TlsStream, cluster: &ClusterRoute) {
    let tenant = door.registry.tenant(&cluster.cluster_id);
    let Ok(_slot) = tenant.connections.clone().try_acquire_owned() else {
        return door.counters.refuse(Refused::Full);
    };
    let Some(mut server) = dial(door, cluster).await else {
        return door.counters.refuse(Refused::NotReady);
    };
    if let Err(error) = copy_bidirectional_with_sizes(&mut stream, &mut server, BUFFER, BUFFER).await {
        debug!(%error, cluster = cluster.cluster_id, "API splice broke off");
    }
}
