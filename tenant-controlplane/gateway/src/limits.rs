//! The bounds of a gateway. Defaults are the measured ones; tests shorten the times.

use std::time::Duration;

/// Bounds on time, memory and numbers; every field has a tried default.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Visitors whose handshake is not over, at most; more wait in the listener's backlog.
    pub pending: usize,
    /// Time for a whole ClientHello. A fifth of it while three quarters of `pending` are taken.
    pub hello_time: Duration,
    /// Time for the rest of a TLS handshake.
    pub handshake_time: Duration,
    /// Time for one answer of the directory; after it the last known answer is used.
    pub lookup_time: Duration,
    /// Time to reach a tenant API server.
    pub dial_time: Duration,
    /// Time for a CONNECT's head, and again for the agent's answer. Must exceed the agent's own dial timeout (4 s).
    pub connect_time: Duration,
    /// Passthrough connections and API splices per cluster.
    pub connections_per_cluster: usize,
    /// Links (orders and tunnels together) that one node may hold: more than two are only ever ones whose peer vanished.
    pub links_per_node: usize,
    /// How long an enrolment may take, from handshake to end; whoever enrols has shown no certificate yet.
    pub enrolment_time: Duration,
    /// Tunnel streams per link. The agent's SETTINGS_MAX_CONCURRENT_STREAMS lowers it further.
    pub streams_per_link: usize,
    /// Tunnel streams per cluster.
    pub streams_per_cluster: usize,
    /// Receive window of a tunnel stream, bytes: what one stalled stream may hold in memory. At most 2^31 - 1.
    pub stream_window: u32,
    /// Time between pings on a tunnel, idle or not.
    pub ping_every: Duration,
    /// A pong later than this ends the tunnel.
    pub ping_timeout: Duration,
    /// How long a tunnel that was replaced may finish its streams.
    pub link_drain: Duration,
    /// How long a stream may stay silent after its front end closed its sending side.
    pub half_closed: Duration,
    /// How long a stopping gateway waits for what still runs.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending: 1024,
            hello_time: Duration::from_secs(5),
            handshake_time: Duration::from_secs(10),
            lookup_time: Duration::from_secs(2),
            dial_time: Duration::from_secs(5),
            connect_time: Duration::from_secs(5),
            connections_per_cluster: 4096,
            links_per_node: 16,
            enrolment_time: Duration::from_secs(60),
            streams_per_link: 500,
            streams_per_cluster: 1000,
            stream_window: 512 * 1024,
            ping_every: Duration::from_secs(3),
            ping_timeout: Duration::from_secs(5),
            link_drain: Duration::from_secs(30),
            half_closed: Duration::from_secs(300),
            drain: Duration::from_secs(3),
        }
    }
}
