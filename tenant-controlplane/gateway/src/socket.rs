//! Settings of TCP sockets: no delay, dead peers noticed, and short kernel queues under the tunnel.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tracing::debug;

/// A silent peer is asked after this, then every [`PROBE_EVERY`], and given up after [`PROBES`] questions: 60 s in all.
const SILENCE: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// Bytes the kernel may hold unsent under a tunnel: with more, an echo waits for whole bulk downloads to leave first.
const NOT_SENT: u32 = 16 * 1024;

/// Sends small writes at once and notices dead peers. A socket that cannot be set is used as it is.
pub(crate) fn tune(tcp: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(PROBE_EVERY).with_retries(PROBES);
    let socket = SockRef::from(tcp);
    if let Err(error) = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive)) {
        debug!(%error, "socket options not set");
    }
}

/// Keeps the kernel's send queue short, so that HTTP/2 decides what goes next (`TCP_NOTSENT_LOWAT`).
pub(crate) fn keep_queue_short(tcp: &TcpStream) {
    if let Err(error) = SockRef::from(tcp).set_tcp_notsent_lowat(NOT_SENT) {
        debug!(%error, "TCP_NOTSENT_LOWAT not set");
    }
}

/// Has the connection reset when it is dropped, with what it has not sent yet: a peer that does not read hears of it at once, which it
/// would not of an end behind bytes that it leaves lying.
pub(crate) fn reset_on_drop(tcp: &TcpStream) {
    if let Err(error) = SockRef::from(tcp).set_linger(Some(Duration::ZERO)) {
        debug!(%error, "SO_LINGER not set");
    }
}
