//! The bounds of a gateway. Defaults are the measured ones; tests shorten the times.

use std::time::Duration;

use crate::splice::SpliceTimeouts;

/// How long a client may go on sending after its server closed its side.
const SERVER_GONE: Duration = Duration::from_secs(30);

/// Bounds on time, memory and numbers; every field has a tried default.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections whose handshake is not over, at most; more wait in the listener's backlog.
    pub pending: usize,
    /// Connections to the portal that have shown no credential, at most; for one more, the idlest of the greediest is closed.
    pub portal_connections: usize,
    /// Connections to the portal that have, likewise.
    pub portal_callers: usize,
    /// Enrollments at a time, likewise; agents try again.
    pub enrollments: usize,
    /// Of `pending`, `portal_connections`, `portal_callers` and `enrollments`, at most this many each for one address (IPv6: one /64).
    pub per_address: usize,
    /// And at most this many for one network (IPv4: one /24, IPv6: one /48).
    pub per_network: usize,
    /// Time for a whole ClientHello. A fifth of it while three quarters of `pending` are taken.
    pub hello_time: Duration,
    /// Time for the rest of a TLS handshake.
    pub handshake_time: Duration,
    /// Time for one answer of the directory; after it the last known answer is used.
    pub lookup_time: Duration,
    /// Time to reach a tenant API server, wherever it is by then: its pod may just be replaced.
    pub dial_time: Duration,
    /// Dials of one cluster at a time; more wait, at their own cluster's cost.
    pub dials_per_cluster: usize,
    /// Time for a CONNECT's head, and again for the agent's answer. Must exceed the agent's own dial timeout (4 s).
    pub connect_time: Duration,
    /// Passthrough connections per cluster.
    pub connections_per_cluster: usize,
    /// Of the passthrough connections, at most this many for one address; all nodes behind one NAT have one.
    pub connections_per_address: usize,
    /// How long a server name that nobody has is remembered as such.
    pub unknown_time: Duration,
    /// Links (orders and tunnels together) that one node may hold: more than two are only ever ones whose peer vanished.
    pub links_per_node: usize,
    /// API splices of one node: its kubelet, kube-proxy and pods. Nobody without its certificate takes them.
    pub splices_per_node: usize,
    /// How long an enrollment may take, from handshake to end; whoever enrolls has shown no certificate yet.
    pub enrollment_time: Duration,
    /// Tunnel streams per link. The agent's SETTINGS_MAX_CONCURRENT_STREAMS lowers it further.
    pub streams_per_link: usize,
    /// Tunnel streams per cluster.
    pub streams_per_cluster: usize,
    /// Receive window of a tunnel stream at first, bytes: what one stalled stream may hold in memory. At most 2^31 - 1.
    pub stream_window: u32,
    /// What the windows of a link grow to while its streams are faster than they allow.
    pub largest_window: u32,
    /// Bytes that the tunnel streams of all clusters together may hold in memory.
    pub tunnel_bytes: usize,
    /// And those of one cluster.
    pub tunnel_bytes_per_cluster: usize,
    /// Time between pings on a tunnel, idle or not.
    pub ping_every: Duration,
    /// A pong later than this ends the tunnel.
    pub ping_timeout: Duration,
    /// How long a tunnel that was replaced may finish its streams.
    pub link_drain: Duration,
    /// How long a connection may go on after its client closed its sending side; at most 30 s after its server did.
    pub half_closed: Duration,
    /// How long a stopping gateway waits for what still runs.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending: 1024,
            portal_connections: 2048,
            portal_callers: 2048,
            enrollments: 512,
            per_address: 256,
            per_network: 1024,
            hello_time: Duration::from_secs(5),
            handshake_time: Duration::from_secs(10),
            lookup_time: Duration::from_secs(2),
            dial_time: Duration::from_secs(5),
            dials_per_cluster: 64,
            connect_time: Duration::from_secs(5),
            connections_per_cluster: 4096,
            connections_per_address: 1024,
            unknown_time: Duration::from_secs(3),
            links_per_node: 16,
            splices_per_node: 1280,
            enrollment_time: Duration::from_secs(60),
            streams_per_link: 500,
            streams_per_cluster: 1000,
            stream_window: 64 * 1024,
            largest_window: 512 * 1024,
            tunnel_bytes: 256 * 1024 * 1024,
            tunnel_bytes_per_cluster: 128 * 1024 * 1024,
            ping_every: Duration::from_secs(3),
            ping_timeout: Duration::from_secs(5),
            link_drain: Duration::from_secs(30),
            half_closed: Duration::from_secs(300),
            drain: Duration::from_secs(3),
        }
    }
}

impl Limits {
    /// How long half a connection may go on alone.
    pub(crate) fn splice_timeouts(&self) -> SpliceTimeouts {
        SpliceTimeouts { with_server: self.half_closed, with_client: self.half_closed.min(SERVER_GONE) }
    }
}
