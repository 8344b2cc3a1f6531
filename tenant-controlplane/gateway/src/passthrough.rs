//! People and kubelets to their tenant API server: bytes both ways, TLS untouched.

use std::sync::Arc;

use tokio::{
    io::{AsyncWriteExt, copy_bidirectional_with_sizes},
    net::TcpStream,
    time::timeout,
};
use tracing::debug;

use crate::{
    Door,
    accept::Visitor,
    counters::{Kind, Refused},
    directory::ClusterRoute,
    socket,
};

/// Copy buffer per direction, bytes: idle connections (watches) are many, bulk is rare.
pub(crate) const BUFFER: usize = 16 * 1024;

/// Replays the ClientHello to the API server and copies until both sides are done or the cluster is dropped.
pub(crate) async fn serve(door: &Arc<Door>, visitor: Visitor, cluster: ClusterRoute) {
    let tenant = door.registry.tenant(&cluster.cluster_id);
    let Ok(_slot) = tenant.connections.clone().try_acquire_owned() else {
        return visitor.refuse(door, Refused::Full).await;
    };
    let Some(mut server) = dial(door, &cluster).await else {
        return visitor.refuse(door, Refused::NotReady).await;
    };
    let Visitor { mut tcp, hello, place, .. } = visitor;
    drop(place);
    let _live = door.counters.open(Kind::Passthrough);
    let copy = async {
        server.write_all(&hello.raw).await?;
        drop(hello);
        copy_bidirectional_with_sizes(&mut tcp, &mut server, BUFFER, BUFFER).await
    };
    if let Some(Err(error)) = tenant.token.run_until_cancelled(copy).await {
        debug!(%error, cluster = cluster.cluster_id, "passthrough broke off");
    }
}

/// A connection to the cluster's API server, if it has one that answers in time.
pub(crate) async fn dial(door: &Door, cluster: &ClusterRoute) -> Option<TcpStream> {
    let tcp = match timeout(door.limits.dial_time, TcpStream::connect(cluster.api?)).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) => {
            debug!(%error, cluster = cluster.cluster_id, "API server refused the connection");
            return None;
        }
        Err(_) => {
            debug!(cluster = cluster.cluster_id, "API server did not answer in time");
            return None;
        }
    };
    socket::tune(&tcp);
    Some(tcp)
}
