//! What can be wrong with a gateway as a whole. Single connections never surface here: they are answered and counted.

use std::io;

/// Why a gateway could not be made or run.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The listener does not know its own address.
    #[error("read the listener's address")]
    ReadAddress(#[source] io::Error),
    /// The server certificate and its key are unusable or do not fit each other.
    #[error("use the gateway's server certificate")]
    UseCertificate(#[source] rustls::Error),
    /// The authorities of other gateways' certificates are unusable.
    #[error("use the authorities of other gateways")]
    UsePeers(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// [`crate::Gateway::run`] was called twice.
    #[error("the gateway is already running")]
    AlreadyRunning,
}
