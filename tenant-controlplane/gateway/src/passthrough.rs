//! People to their tenant API server: bytes both ways, TLS untouched.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tracing::debug;

use crate::{
    GatewayState,
    accept::{self, InboundConnection},
    counters::{Kind, Refused},
    dial::dial,
    directory::ClusterRoute,
    limiter::Acquired,
    splice::splice,
};

/// Replays the ClientHello to the API server and copies until both sides are done or the cluster's clients are dropped.
pub(crate) async fn serve(state: &Arc<GatewayState>, inbound: InboundConnection, cluster: ClusterRoute) {
    let tenant = state.registry.tenant(&cluster.cluster_id);
    let cut = tenant.client_token().child_token();
    let own = match tenant.connections.take(inbound.address.ip(), cut.clone()) {
        Acquired::Permit(own, has_evicted) => {
            if has_evicted {
                state.counters.refuse(Refused::Full);
            }
            own
        }
        Acquired::Rejected => return inbound.refuse(state, Refused::Full).await,
    };
    // From here on the connection counts for the tenant: a slow API server must not keep a permit that others wait for.
    let InboundConnection { mut tcp, hello, permit, .. } = inbound;
    drop(permit);
    let Some(Some(mut server)) = cut.run_until_cancelled(dial(state, &cluster)).await else {
        return accept::refuse(state, tcp, Refused::NotReady).await;
    };
    let _live = state.counters.open(Kind::Passthrough);
    let copy = async {
        server.write_all(&hello.raw).await?;
        drop(hello);
        splice(tcp.split(), server.split(), state.limits.splice_timeouts(), &|| own.touch()).await
    };
    if let Some(Err(error)) = cut.run_until_cancelled(copy).await {
        debug!(%error, cluster = cluster.cluster_id, "passthrough aborted");
    }
}
