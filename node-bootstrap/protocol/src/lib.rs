//! What node agents, the gateway and the platform say to each other: every contract on the wire, as types.
//!
//! Without features: server names, application protocols, headers, paths, ports, certificate subjects and names of programs. With `grpc`
//! the two services of proto/agent.proto: `Enrollment` (a token, no certificate) and `NodeLink` (the caller is its client certificate).

pub mod alpn;
#[cfg(feature = "grpc")]
mod grpc;
pub mod header;
pub mod path;
pub mod port;
pub mod program;
pub mod server_name;
pub mod subject;

#[cfg(feature = "grpc")]
pub use grpc::*;
