//! People to their tenant API server: bytes both ways, TLS untouched.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tracing::debug;

use crate::{
    Door,
    accept::{self, Visitor},
    counters::{Kind, Refused},
    dial::dial,
    directory::ClusterRoute,
    places::Taken,
    splice::splice,
};

/// Replays the ClientHello to the API server and copies until both sides are done or the cluster's clients are dropped.
pub(crate) async fn serve(door: &Arc<Door>, visitor: Visitor, cluster: ClusterRoute) {
    let tenant = door.registry.tenant(&cluster.cluster_id);
    let cut = tenant.client_token().child_token();
    let own = match tenant.connections.take(visitor.address.ip(), cut.clone()) {
        Taken::Place(own, has_made_room) => {
            if has_made_room {
                door.counters.refuse(Refused::Full);
            }
            own
        }
        Taken::Refused => return visitor.refuse(door, Refused::Full).await,
    };
    // From here on the visitor is the tenant's: a slow API server must not keep a place that others wait for.
    let Visitor { mut tcp, hello, place, .. } = visitor;
    drop(place);
    let Some(Some(mut server)) = cut.run_until_cancelled(dial(door, &cluster)).await else {
        return accept::refuse(door, tcp, Refused::NotReady).await;
    };
    let _live = door.counters.open(Kind::Passthrough);
    let copy = async {
        server.write_all(&hello.raw).await?;
        drop(hello);
        splice(tcp.split(), server.split(), door.limits.patience(), &|| own.touch()).await
    };
    if let Some(Err(error)) = cut.run_until_cancelled(copy).await {
        debug!(%error, cluster = cluster.cluster_id, "passthrough aborted");
    }
}
