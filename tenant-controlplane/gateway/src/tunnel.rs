//! The reverse tunnel: an agent dials in, and over its one connection the API server reaches that node.
//!
//! On a link (ALPN `pilothouse-tunnel/1`) the agent is the HTTP/2 server and the gateway its client; each CONNECT of an
//! API server becomes one stream. The `h2` crate is used directly: aborts must stay aborts (RST_STREAM, CONNECT_ERROR)
//! in both directions, which upgraded connections of a higher layer turn into clean ends.
//!
//! One link's life is [`serve`]: handshake, a first ping (it proves the agent speaks, and its settings have arrived),
//! entry into the registry, pings until something ends it, exit.

pub(crate) mod budget;
pub(crate) mod client;
pub(crate) mod head;
pub(crate) mod notify;
pub(crate) mod refusal;
pub(crate) mod registry;
pub(crate) mod relay;
pub(crate) mod target;
pub(crate) mod window;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::{Ping, PingPong, client::Connection};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, info};

use crate::{
    GatewayState,
    conn::TlsStream,
    directory::NodeRoute,
    limits::Limits,
    link::NodeIdentity,
    socket,
    tunnel::{
        client::{Link, LinkParts},
        window::Window,
    },
};

/// How often it is asked whether a window can be small again.
const LOOK: Duration = Duration::from_secs(10);

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum Ending {
    /// The agent closed it, or the connection broke.
    #[error("the agent closed the connection")]
    Closed,
    /// HTTP/2 failed.
    #[error("HTTP/2 handshake with agent")]
    Protocol(#[source] h2::Error),
    /// A pong did not come in time.
    #[error("agent ping timeout")]
    Frozen,
    /// A newer link of the same node replaced it, or the gateway stops.
    #[error("replaced by a newer link, or gateway shutdown")]
    Drained,
    /// The node was removed or its cluster deleted.
    #[error("closed: node removed")]
    Cut,
}

/// Serves one link to its end.
pub(crate) async fn serve(state: &Arc<GatewayState>, stream: TlsStream, identity: NodeIdentity, node: NodeRoute) {
    socket::keep_queue_short(&stream.get_ref().0.socket());
    let NodeIdentity { address, cluster, node_id } = identity;
    let tenant = state.registry.tenant(&cluster.cluster_id);
    let (mut connection, mut pings, sender) = match greet(stream, &state.limits).await {
        Ok(greeted) => greeted,
        Err(ending) => {
            return info!(error = &ending as &dyn std::error::Error, node = node.name, %address, "tunnel setup failed");
        }
    };
    let parts = LinkParts {
        serial: state.registry.serial(),
        closed: tenant.node_token(&node_id),
        draining: state.stopping.child_token(),
        limit: state.limits.streams_per_link,
        sender,
        window: Window::new(&state.limits),
    };
    let link = Arc::new(Link::new(node_id.clone(), node, parts));
    if !tenant.enter(&link) {
        return debug!(node = link.name, "node removed during tunnel setup");
    }
    state.notifier.changed(&cluster.cluster_id, &node_id);
    info!(node = link.name, cluster = cluster.cluster_id, %address, "tunnel up");
    let ending = tokio::select! {
        end = carry(&mut connection, &link.window) => end,
        ending = watch(&mut pings, &state.limits) => ending,
        () = link.drained(state.limits.link_drain) => Ending::Drained,
        () = link.closed.cancelled() => Ending::Cut,
    };
    tenant.leave(&link);
    state.notifier.changed(&cluster.cluster_id, &node_id);
    info!(error = &ending as &dyn std::error::Error, node = link.name, cluster = cluster.cluster_id, "tunnel down");
}

/// Moves the link's frames until it ends, and follows what its window should be.
async fn carry(connection: &mut Connection<TlsStream, Bytes>, window: &Window) -> Ending {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let before = window.size();
        let size = tokio::select! {
            end = &mut *connection => return end.map_or_else(Ending::Protocol, |()| Ending::Closed),
            () = window.asked() => window.grow(),
            _ = looks.tick() => window.is_settled(),
        };
        // The agent may not have confirmed the last size: the next stream that is fast asks again.
        if let Some(Err(error)) = size.map(|size| connection.set_initial_window_size(size)) {
            debug!(%error, "flow-control window not changed");
            window.restore(before);
        }
    }
}

type Greeted = (Connection<TlsStream, Bytes>, PingPong, h2::client::SendRequest<Bytes>);

/// HTTP/2 handshake and the first ping.
async fn greet(stream: TlsStream, limits: &Limits) -> Result<Greeted, Ending> {
    let handshake = client::builder(limits).handshake::<_, Bytes>(stream);
    let (sender, mut connection) = match timeout(limits.ping_timeout, handshake).await {
        Ok(outcome) => outcome.map_err(Ending::Protocol)?,
        Err(_) => return Err(Ending::Frozen),
    };
    let mut pings = connection.ping_pong().ok_or(Ending::Closed)?;
    tokio::select! {
        end = &mut connection => return Err(end.map_or_else(Ending::Protocol, |()| Ending::Closed)),
        alive = ping(&mut pings, limits) => alive?,
    }
    Ok((connection, pings, sender))
}

/// Pings for ever, idle or not; returns what ended it.
async fn watch(pings: &mut PingPong, limits: &Limits) -> Ending {
    let mut ticks = interval(limits.ping_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(ending) = ping(pings, limits).await {
            return ending;
        }
    }
}

async fn ping(pings: &mut PingPong, limits: &Limits) -> Result<(), Ending> {
    match timeout(limits.ping_timeout, pings.ping(Ping::opaque())).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Ending::Protocol(error)),
        Err(_) => Err(Ending::Frozen),
    }
}
