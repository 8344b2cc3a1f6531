//! What a node agent and the platform say to each other. The proto file is the text; this is its Rust.
//!
//! Two services: `Enrollment` (a token, no certificate) and `NodeLink` (the caller is its client certificate).
#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated from proto/agent.proto, which carries the words"
)]

mod refused;

tonic::include_proto!("pilothouse.agent.v1");

/// The programs of a node, each a `binary` part of the bundle: what the platform hands out and what the agent takes,
/// in the order of need.
pub const PROGRAMS: [&str; 10] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "ptp",
    "host-local",
    "loopback",
    "portmap",
    "kubelet",
    "kube-proxy",
];

/// The ALPN name by which an agent offers the reverse tunnel (it is the HTTP/2 server there).
pub const ALPN_TUNNEL: &[u8] = b"pilothouse-tunnel/1";
/// The ALPN name for raw bytes to the cluster's API server.
pub const ALPN_API: &[u8] = b"pilothouse-api/1";
/// The ALPN name for gRPC.
pub const ALPN_GRPC: &[u8] = b"h2";
