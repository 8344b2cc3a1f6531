//! The listener's loop and a visitor's first steps: read the ClientHello, look at the name, send it on its way.
//!
//! A visitor holds a place among the pending ones until its handshake is over. There are [`Limits::pending`] places, at most
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
    Door, Peer,
    claim::Holding,
    conn::{Conn, TlsStream},
    counters::{Kind, Refused},
    directory::{ClusterRoute, DirectoryError},
    egress,
    hello::{self, Alert, Hello, HelloError},
    link, passthrough,
    places::{Place, Taken},
    socket,
};

/// The first and the longest pause after failed `accept`s: out of file descriptors, mostly.
const BREATH: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// A dismissed visitor's last words are read this long, so that the answer is not lost to a TCP reset.
const LINGER: Duration = Duration::from_secs(1);
/// And at most this many bytes of them.
const LAST_WORDS: u64 = 64 * 1024;

const TLS_PORT: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 61\r\n\
    Connection: close\r\n\r\nThis port speaks TLS only. Use https:// in place of http://.\n";

/// A visitor whose ClientHello is complete.
pub(crate) struct Visitor {
    /// The connection, nothing answered yet.
    pub(crate) tcp: TcpStream,
    /// The other end.
    pub(crate) address: SocketAddr,
    /// What it said.
    pub(crate) hello: Hello,
    /// Its place among the pending ones; dropped when it is on its way.
    pub(crate) place: Place,
}

/// Accepts until the gateway stops. On a cluster's own port, whose label is `only`, every name leads to that cluster's API server.
pub(crate) async fn run(door: &Arc<Door>, listener: TcpListener, only: Option<String>) {
    let mut breath = BREATH.0;
    loop {
        match listener.accept().await {
            Ok((tcp, address)) => {
                breath = BREATH.0;
                admit(door, tcp, address, only.clone()).await;
            }
            Err(error) => {
                warn!(%error, "accept failed");
                sleep(breath).await;
                breath = (breath * 2).min(BREATH.1);
            }
        }
    }
}

/// Gives a visitor its place. While all are held by handshakes that have only just begun, it waits, and others in the backlog.
async fn admit(door: &Arc<Door>, tcp: TcpStream, address: SocketAddr, only: Option<String>) {
    let cut = door.hard.child_token();
    let place = loop {
        match door.pending.take(address.ip(), cut.clone()) {
            Taken::Place(place, has_made_room) => {
                if has_made_room {
                    door.counters.refuse(Refused::Crowd);
                }
                break place;
            }
            Taken::Refused if door.pending.are_full() => sleep(BREATH.0).await,
            Taken::Refused => return door.counters.refuse(Refused::Crowd),
        }
    };
    let visit = serve(door.clone(), tcp, address, place, only);
    door.tasks.spawn(async move {
        let _ = cut.run_until_cancelled(visit).await;
    });
}

async fn serve(door: Arc<Door>, mut tcp: TcpStream, address: SocketAddr, place: Place, only: Option<String>) {
    socket::tune(&tcp);
    match timeout(hello_time(&door), hello::read(&mut tcp)).await {
        Ok(Ok(hello)) => {
            let visitor = Visitor { tcp, address, hello, place };
            let target = only.map_or_else(
                || ServerName::parse(visitor.hello.server_name().as_deref(), &door.domain),
                ServerName::Api,
            );
            route(&door, visitor, target).await;
        }
        Ok(Err(error)) => turn_away(&door, tcp, error).await,
        Err(_) => {
            debug!(%address, "ClientHello timeout");
            door.counters.refuse(Refused::Slow);
        }
    }
}

fn hello_time(door: &Door) -> Duration {
    if door.pending.are_scarce() { door.limits.hello_time / 5 } else { door.limits.hello_time }
}

async fn turn_away(door: &Door, tcp: TcpStream, error: HelloError) {
    debug!(error = &error as &dyn std::error::Error, "invalid ClientHello");
    let (reason, answer): (_, &[u8]) = match &error {
        HelloError::Closed | HelloError::Read(_) => return,
        HelloError::PlainHttp => (Refused::PlainHttp, TLS_PORT),
        HelloError::Refused { alert, .. } => (Refused::Hello, alert),
        HelloError::NotTls | HelloError::Oversized => (Refused::Hello, &[]),
    };
    door.counters.refuse(reason);
    dismiss(tcp, answer).await;
}

async fn route(door: &Arc<Door>, visitor: Visitor, target: ServerName) {
    match target {
        ServerName::Portal => portal(door, visitor).await,
        ServerName::Enrollment => link::enrolment(door, visitor).await,
        ServerName::Unknown => visitor.refuse(door, Refused::UnknownName).await,
        ServerName::Api(label) => {
            let found = door.routes.cluster(&label).await;
            if let Some((visitor, cluster)) = known(door, visitor, found).await {
                passthrough::serve(door, visitor, cluster).await;
            }
        }
        ServerName::Link(label) => {
            let found = door.routes.cluster_of_nodes(&label).await;
            if let Some((visitor, cluster)) = known(door, visitor, found).await {
                link::serve(door, visitor, cluster).await;
            }
        }
        ServerName::Egress(label) => {
            let found = door.routes.cluster(&label).await;
            if let Some((visitor, cluster)) = known(door, visitor, found).await {
                egress::serve(door, visitor, cluster).await;
            }
        }
    }
}

/// The cluster that was looked up; a visitor for none is answered with an alert.
async fn known(
    door: &Door,
    visitor: Visitor,
    found: Result<Option<ClusterRoute>, DirectoryError>,
) -> Option<(Visitor, ClusterRoute)> {
    match found {
        Ok(Some(cluster)) => return Some((visitor, cluster)),
        Ok(None) => visitor.refuse(door, Refused::UnknownName).await,
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "cluster lookup failed");
            visitor.refuse(door, Refused::NotReady).await;
        }
    }
    None
}

async fn portal(door: &Arc<Door>, visitor: Visitor) {
    let peer = Peer { address: visitor.address, node: None };
    if let Some(mut stream) = visitor.finish(door, door.tls.portal()).await {
        let (address, cut) = (peer.address.ip(), door.hard.child_token());
        let Some(place) = door.place(&door.portals, address, &cut) else { return };
        let connection = &mut stream.get_mut().0;
        socket::keep_queue_short(&connection.socket());
        connection.occupy(Holding::new(place, address, cut.clone(), door.callers.clone()));
        connection.bind(cut, door.live(Kind::Portal));
        (door.portal)(stream, peer);
    }
}

impl Visitor {
    /// Answers with an alert and closes: `unrecognized_name` for a name nobody has, else `internal_error`.
    pub(crate) async fn refuse(self, door: &Door, reason: Refused) {
        refuse(door, self.tcp, reason).await;
    }

    /// Ends TLS here. `None`: the handshake failed, and the visitor has been told by an alert.
    pub(crate) async fn finish(self, door: &Door, config: Arc<ServerConfig>) -> Option<TlsStream> {
        let Self { tcp, address, hello, place } = self;
        let handshake = StartHandshake::from_parts(hello.accepted, Conn::new(tcp)).into_stream(config);
        let outcome = timeout(door.limits.handshake_time, handshake).await;
        drop(place);
        let error = match outcome {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error,
            Err(late) => io::Error::from(late),
        };
        debug!(%address, %error, "TLS handshake failed");
        door.counters.refuse(Refused::Handshake);
        None
    }
}

/// Answers a ClientHello with an alert and closes: `unrecognized_name` for a name nobody has, else `internal_error`.
pub(crate) async fn refuse(door: &Door, tcp: TcpStream, reason: Refused) {
    door.counters.refuse(reason);
    let alert = if reason == Refused::UnknownName { Alert::UnrecognizedName } else { Alert::InternalError };
    dismiss(tcp, &alert.record()).await;
}

/// Sends the last answer and closes in a way that lets it arrive.
pub(crate) async fn dismiss(mut tcp: TcpStream, answer: &[u8]) {
    let farewell = async {
        tcp.write_all(answer).await?;
        tcp.shutdown().await?;
        tokio::io::copy(&mut (&mut tcp).take(LAST_WORDS), &mut tokio::io::sink()).await
    };
    let _ = timeout(LINGER, farewell).await;
}
