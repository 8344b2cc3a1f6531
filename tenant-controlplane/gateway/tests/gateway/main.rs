//! The gateway on real sockets and real TLS: connections, certificates, tunnels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod agent;
mod crowd;
mod forward;
mod hello;
mod identity;
mod lifecycle;
mod names;
mod pki;
mod real;
mod tunnel;
mod world;
