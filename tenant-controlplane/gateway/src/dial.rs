//! The way to a tenant API server. While its pod is replaced the address known just now may be that of the one that went, or none: the
//! route is looked up again and dialed again, for a while, at its own cluster's cost.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tracing::debug;

use crate::{GatewayState, directory::ClusterRoute, socket};

/// One attempt: long enough for a lost packet to be sent again, short enough to learn of another address meanwhile.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// The first and the longest pause between attempts: each looks the route up.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(800));

/// A connection to the cluster's API server. `None`: it had none that took a connection within [`Limits::dial_time`].
///
/// [`Limits::dial_time`]: crate::Limits::dial_time
pub(crate) async fn dial(state: &GatewayState, cluster: &ClusterRoute) -> Option<TcpStream> {
    let tcp = timeout(state.limits.dial_time, dial_with_retry(state, cluster)).await.ok()??;
    socket::tune(&tcp);
    Some(tcp)
}

/// Tries until it succeeds. `None`: there is no such cluster any more.
async fn dial_with_retry(state: &GatewayState, cluster: &ClusterRoute) -> Option<TcpStream> {
    let dials = state.registry.tenant(&cluster.cluster_id).dials.clone();
    let _permit = dials.acquire().await.ok()?;
    let (mut address, mut pause) = (cluster.api, PAUSE.0);
    loop {
        if let Some(tcp) = attempt(address).await {
            return Some(tcp);
        }
        debug!(?address, cluster = cluster.cluster_id, "API server dial failed");
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
        // While the directory cannot say, it is where it was.
        if let Ok(route) = state.routes.cluster(cluster.label()).await {
            address = route?.api;
        }
    }
}

async fn attempt(address: Option<SocketAddr>) -> Option<TcpStream> {
    timeout(ATTEMPT, TcpStream::connect(address?)).await.ok()?.ok()
}
