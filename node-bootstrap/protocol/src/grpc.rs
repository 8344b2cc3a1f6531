//! The generated half: proto/agent.proto, which carries the words.
#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated from proto/agent.proto, which carries the words"
)]

mod refused;
pub mod words;

tonic::include_proto!("pilothouse.agent.v1");
