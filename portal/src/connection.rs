//! Who is at the other end of the wire, as far as the listener knows.

use crate::state::AppState;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::HOST;
use axum::http::request::Parts;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The peer of a request. Whoever serves the portal inserts it into the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The peer's address, for rate limits.
    pub address: IpAddr,
    /// Whether the request came over TLS, so that cookies may insist on it.
    pub tls: bool,
}

/// Called when a request of a connection has shown a valid credential. Whoever serves the portal may insert it into the
/// request's extensions, to tell authenticated from anonymous connections when permits are short.
#[derive(Clone)]
pub struct CredentialSeen(Arc<dyn Fn() + Send + Sync>);

impl CredentialSeen {
    /// `report` is called for each such request; it must not block.
    pub fn new(report: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }

    pub(crate) fn report(&self) {
        (self.0)();
    }
}

impl FromRequestParts<AppState> for Connection {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().copied();
        Ok(known.unwrap_or_else(|| guessed(parts, &state.config().public_url)))
    }
}

/// Without word from the listener: TLS if the public address says https and is the address that was asked for.
fn guessed(parts: &Parts, public_url: &str) -> Connection {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok()).or_else(|| parts.uri.host());
    let tls = public_url.strip_prefix("https://").is_some_and(|authority| Some(authority) == host);
    Connection { address: peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), tls }
}
