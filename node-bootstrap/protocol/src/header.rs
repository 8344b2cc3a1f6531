//! Names of HTTP headers and gRPC metadata that are ours.

/// Why an agent refuses a tunnel's stream: text for people.
pub const TUNNEL_REASON: &str = "x-pilothouse-reason";
/// Which cluster a CONNECT between gateways is for: its id.
pub const CLUSTER: &str = "x-pilothouse-cluster";
/// The SHA-256 of a program that is downloaded, lower-case hex.
pub const CHECKSUM: &str = "x-checksum-sha256";
/// A [`Refusal`](crate::Refusal), encoded: binary metadata of a gRPC status (gRPC over HTTP/2, "Custom-Metadata").
#[cfg(feature = "grpc")]
pub(crate) const REFUSAL: &str = "pilothouse-refusal-bin";
