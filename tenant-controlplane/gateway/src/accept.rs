//! The accept loop and an inbound connection's first steps: read the ClientHello, look at the name, send it on its way.
//!
//! A connection holds a permit among the pending ones until its handshake is over. There are [`Limits::pending`] permits, at most
//! [`Limits::per_address`] of them for one address; while they are scarce, a ClientHello gets a fifth of its time, and when they are
//! all taken, the oldest of the greediest address makes room.
//!
//! [`Limits::pending`]: crate::Limits::pending
//! [`Limits::per_address`]: crate::Limits::per_address

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use node_protocol::server_name::ServerName;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::StartHandshake;
use tracing::{debug, warn};

use crate::{
    GatewayState, Peer,
    claim::HeldPermit,
    conn::{Conn, TlsStream},
    counters::{Kind, Refused},
    directory::{ClusterRoute, DirectoryError},
    egress, forward,
    hello::{self, Alert, Hello, HelloError},
    limiter::{Acquired, ConnectionPermit},
    link, passthrough, socket,
};

/// The first and the longest pause after failed `accept`s: out of file descriptors, mostly.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// A rejected connection is read this long, so that the answer is not lost to a TCP reset.
const LINGER: Duration = Duration::from_secs(1);
/// And at most this many bytes of them.
const LAST_WORDS: u64 = 64 * 1024;

const TLS_PORT: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 61\r\n\
    Connection: close\r\n\r\nThis port speaks TLS only. Use https:// in place of http://.\n";

/// A connection whose ClientHello is complete.
pub(crate) struct InboundConnection {
    /// The connection, nothing answered yet.
    pub(crate) tcp: TcpStream,
    /// The other end.
    pub(crate) address: SocketAddr,
    /// What it said.
    pub(crate) hello: Hello,
    /// Its permit among the pending ones; dropped when it is routed.
    pub(crate) permit: ConnectionPermit,
}

/// Accepts until the gateway stops. On a cluster's own port, whose label is `only`, every name leads to that cluster's API server.
pub(crate) async fn run(state: &Arc<GatewayState>, listener: TcpListener, only: Option<String>) {
    let mut backoff = ACCEPT_BACKOFF.0;
    loop {
        match listener.accept().await {
            Ok((tcp, address)) => {
                backoff = ACCEPT_BACKOFF.0;
                admit(state, tcp, address, only.clone()).await;
            }
            Err(error) => {
                warn!(%error, "accept failed");
                sleep(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF.1);
            }
        }
    }
}

/// Acquires a permit for a connection. While all are held by handshakes that have only just begun, it waits, and others in the backlog.
async fn admit(state: &Arc<GatewayState>, tcp: TcpStream, address: SocketAddr, only: Option<String>) {
    let cut = state.hard.child_token();
    let permit = loop {
        match state.pending.take(address.ip(), cut.clone()) {
            Acquired::Permit(permit, has_evicted) => {
                if has_evicted {
                    state.counters.refuse(Refused::Crowd);
                }
                break permit;
            }
            Acquired::Rejected if state.pending.are_full() => sleep(ACCEPT_BACKOFF.0).await,
            Acquired::Rejected => return state.counters.refuse(Refused::Crowd),
        }
    };
    let visit = serve(state.clone(), tcp, address, permit, only);
    state.tasks.spawn(async move {
        let _ = cut.run_until_cancelled(visit).await;
    });
}

async fn serve(
    state: Arc<GatewayState>,
    mut tcp: TcpStream,
    address: SocketAddr,
    permit: ConnectionPermit,
    only: Option<String>,
) {
    socket::tune(&tcp);
    match timeout(hello_time(&state), hello::read(&mut tcp)).await {
        Ok(Ok(hello)) => {
            let inbound = InboundConnection { tcp, address, hello, permit };
            let target = only.map_or_else(
                || ServerName::parse(inbound.hello.server_name().as_deref(), &state.domain),
                ServerName::Api,
            );
            route(&state, inbound, target).await;
        }
        Ok(Err(error)) => reject(&state, tcp, error).await,
        Err(_) => {
            debug!(%address, "ClientHello timeout");
            state.counters.refuse(Refused::Slow);
        }
    }
}

fn hello_time(state: &GatewayState) -> Duration {
    if state.pending.are_scarce() { state.limits.hello_time / 5 } else { state.limits.hello_time }
}

async fn reject(state: &GatewayState, tcp: TcpStream, error: HelloError) {
    debug!(error = &error as &dyn std::error::Error, "invalid ClientHello");
    let (reason, answer): (_, &[u8]) = match &error {
        HelloError::Closed | HelloError::Read(_) => return,
        HelloError::PlainHttp => (Refused::PlainHttp, TLS_PORT),
        HelloError::Refused { alert, .. } => (Refused::Hello, alert),
        HelloError::NotTls | HelloError::Oversized => (Refused::Hello, &[]),
    };
    state.counters.refuse(reason);
    close_with(tcp, answer).await;
}

async fn route(state: &Arc<GatewayState>, inbound: InboundConnection, target: ServerName) {
    match target {
        ServerName::Portal => portal(state, inbound).await,
        ServerName::Enrollment => link::enrollment(state, inbound).await,
        ServerName::Unknown => inbound.refuse(state, Refused::UnknownName).await,
        ServerName::Gateway(id) => forward::serve(state, inbound, &id).await,
        ServerName::Api(label) => {
            let found = state.routes.cluster(&label).await;
            if let Some((inbound, cluster)) = known(state, inbound, found).await {
                passthrough::serve(state, inbound, cluster).await;
            }
        }
        ServerName::Link(label) => {
            let found = state.routes.cluster_of_nodes(&label).await;
            if let Some((inbound, cluster)) = known(state, inbound, found).await {
                link::serve(state, inbound, cluster).await;
            }
        }
        ServerName::Egress(label) => {
            let found = state.routes.cluster(&label).await;
            if let Some((inbound, cluster)) = known(state, inbound, found).await {
                egress::serve(state, inbound, cluster).await;
            }
        }
    }
}

/// The cluster that was looked up; a connection for none is answered with an alert.
async fn known(
    state: &GatewayState,
    inbound: InboundConnection,
    found: Result<Option<ClusterRoute>, DirectoryError>,
) -> Option<(InboundConnection, ClusterRoute)> {
    match found {
        Ok(Some(cluster)) => return Some((inbound, cluster)),
        Ok(None) => inbound.refuse(state, Refused::UnknownName).await,
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "cluster lookup failed");
            inbound.refuse(state, Refused::NotReady).await;
        }
    }
    None
}

async fn portal(state: &Arc<GatewayState>, inbound: InboundConnection) {
    let peer = Peer { address: inbound.address, node: None };
    if let Some(mut stream) = inbound.finish(state, state.tls.portal()).await {
        let (address, cut) = (peer.address.ip(), state.hard.child_token());
        let Some(permit) = state.permit(&state.portals, address, &cut) else { return };
        let connection = &mut stream.get_mut().0;
        socket::keep_queue_short(&connection.socket());
        connection.occupy(HeldPermit::new(permit, address, cut.clone(), state.callers.clone()));
        connection.bind(cut, state.live(Kind::Portal));
        (state.portal)(stream, peer);
    }
}

impl InboundConnection {
    /// Answers with an alert and closes: `unrecognized_name` for a name nobody has, else `internal_error`.
    pub(crate) async fn refuse(self, state: &GatewayState, reason: Refused) {
        refuse(state, self.tcp, reason).await;
    }

    /// Ends TLS here. `None`: the handshake failed, and the client got an alert.
    pub(crate) async fn finish(self, state: &GatewayState, config: Arc<ServerConfig>) -> Option<TlsStream> {
        let Self { tcp, address, hello, permit } = self;
        let handshake = StartHandshake::from_parts(hello.accepted, Conn::new(tcp)).into_stream(config);
        let outcome = timeout(state.limits.handshake_time, handshake).await;
        drop(permit);
        let error = match outcome {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error,
            Err(late) => io::Error::from(late),
        };
        debug!(%address, %error, "TLS handshake failed");
        state.counters.refuse(Refused::Handshake);
        None
    }
}

/// Answers a ClientHello with an alert and closes: `unrecognized_name` for a name nobody has, else `internal_error`.
pub(crate) async fn refuse(state: &GatewayState, tcp: TcpStream, reason: Refused) {
    state.counters.refuse(reason);
    let alert = if reason == Refused::UnknownName { Alert::UnrecognizedName } else { Alert::InternalError };
    close_with(tcp, &alert.record()).await;
}

/// Sends the last answer and closes in a way that lets it arrive.
pub(crate) async fn close_with(mut tcp: TcpStream, answer: &[u8]) {
    let discard = async {
        tcp.write_all(answer).await?;
        tcp.shutdown().await?;
        tokio::io::copy(&mut (&mut tcp).take(LAST_WORDS), &mut tokio::io::sink()).await
    };
    let _ = timeout(LINGER, discard).await;
}
