//! Counters: opened, live and rejected connections.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// A kind of connection (or of stream inside one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TLS passed through to a tenant API server.
    Passthrough,
    /// Handed to the portal.
    Portal,
    /// Handed to the link sink without identity.
    Enrollment,
    /// Handed to the link sink as a node.
    Link,
    /// A node's reverse tunnel.
    Tunnel,
    /// A node's splice to its API server.
    Api,
    /// An API server's egress connection.
    Egress,
    /// A CONNECT stream inside a tunnel.
    Stream,
    /// A CONNECT between this gateway and another, at either end.
    Forwarded,
}

impl Kind {
    /// Every kind, in the order of declaration.
    pub const ALL: [Self; 9] = [
        Self::Passthrough,
        Self::Portal,
        Self::Enrollment,
        Self::Link,
        Self::Tunnel,
        Self::Api,
        Self::Egress,
        Self::Stream,
        Self::Forwarded,
    ];

    /// The label value in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Portal => "portal",
            Self::Enrollment => "enrolment",
            Self::Link => "link",
            Self::Tunnel => "tunnel",
            Self::Api => "api",
            Self::Egress => "egress",
            Self::Stream => "stream",
            Self::Forwarded => "forwarded",
        }
    }
}

/// Why a connection (or a CONNECT) was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not a ClientHello, or one beyond the bounds.
    Hello,
    /// The ClientHello did not come in time.
    Slow,
    /// Plain HTTP on the TLS port.
    PlainHttp,
    /// No such cluster.
    UnknownName,
    /// The cluster's API server cannot be reached, or the directory could not answer.
    NotReady,
    /// The TLS handshake failed: a wrong certificate, mostly.
    Handshake,
    /// A node that was removed.
    Removed,
    /// A cap of this cluster was reached.
    Full,
    /// A CONNECT answered with an error.
    Connect,
    /// Too many unauthenticated connections at once, in all or from one address.
    Crowd,
}

impl Refused {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 10] = [
        Self::Hello,
        Self::Slow,
        Self::PlainHttp,
        Self::UnknownName,
        Self::NotReady,
        Self::Handshake,
        Self::Removed,
        Self::Full,
        Self::Connect,
        Self::Crowd,
    ];

    /// The label value in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Slow => "slow",
            Self::PlainHttp => "plain_http",
            Self::UnknownName => "unknown_name",
            Self::NotReady => "not_ready",
            Self::Handshake => "handshake",
            Self::Removed => "removed",
            Self::Full => "full",
            Self::Connect => "connect",
            Self::Crowd => "crowd",
        }
    }
}

/// The counters as they stood at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    opened: [u64; Kind::ALL.len()],
    live: [u64; Kind::ALL.len()],
    refused: [u64; Refused::ALL.len()],
}

impl Snapshot {
    /// How many were opened since the start.
    pub fn opened(&self, kind: Kind) -> u64 {
        self.opened[kind as usize]
    }

    /// How many are open.
    pub fn live(&self, kind: Kind) -> u64 {
        self.live[kind as usize]
    }

    /// How many were rejected for this reason since the start.
    pub fn refused(&self, reason: Refused) -> u64 {
        self.refused[reason as usize]
    }
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    opened: [AtomicU64; Kind::ALL.len()],
    live: [AtomicU64; Kind::ALL.len()],
    refused: [AtomicU64; Refused::ALL.len()],
}

impl Counters {
    /// Counts one as opened, and as open until the guard is dropped.
    pub(crate) fn open(self: &Arc<Self>, kind: Kind) -> Live {
        self.opened[kind as usize].fetch_add(1, Relaxed);
        self.live[kind as usize].fetch_add(1, Relaxed);
        Live { counters: self.clone(), kind }
    }

    /// Counts one rejected connection.
    pub(crate) fn refuse(&self, reason: Refused) {
        self.refused[reason as usize].fetch_add(1, Relaxed);
    }

    /// Reads all of them.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { opened: read(&self.opened), live: read(&self.live), refused: read(&self.refused) }
    }
}

fn read<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|at| counters[at].load(Relaxed))
}

/// Something open; dropping it counts it closed.
#[derive(Debug)]
pub(crate) struct Live {
    counters: Arc<Counters>,
    kind: Kind,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.counters.live[self.kind as usize].fetch_sub(1, Relaxed);
    }
}
