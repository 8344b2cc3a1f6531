//! What a TLS connection is for, by its application protocol (ALPN, RFC 7301).

/// gRPC: enrollment, and the node link's calls.
pub const GRPC: &[u8] = b"h2";
/// Browsers and API clients that speak HTTP/1.1, and the egress selector.
pub const HTTP1: &[u8] = b"http/1.1";
/// The reverse tunnel to a node: the agent is the HTTP/2 server there.
pub const TUNNEL: &[u8] = b"pilothouse-tunnel/1";
/// Between gateways: one CONNECT, as on the egress selector's connections.
pub const GATEWAY: &[u8] = b"pilothouse-gateway/1";
/// Raw bytes to the cluster's API server after the handshake.
pub const API: &[u8] = b"pilothouse-api/1";
