//! Serving HTTP on the decrypted streams that the gateway hands over, and on the loopback port.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use gateway::{Peer, Sink, TlsStream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

use portal::Connection;
use provisioner::{Agents, Caller};

/// After an accept that failed.
const REST: std::time::Duration = std::time::Duration::from_millis(50);

/// One TLS connection that asked for the portal.
pub async fn portal(app: Router, stream: TlsStream, peer: Peer) {
    connection(app, TokioIo::new(stream), Connection { address: peer.address.ip(), tls: true }).await;
}

/// Plain HTTP on loopback, until `cancel`.
pub async fn loopback(app: Router, listener: TcpListener, cancel: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, address)) = accepted else {
            // Without descriptors the next try fails at once as well.
            tokio::time::sleep(REST).await;
            continue;
        };
        stream.set_nodelay(true).ok();
        tokio::spawn(plain(app.clone(), TokioIo::new(stream), address));
    }
}

async fn plain(app: Router, io: TokioIo<tokio::net::TcpStream>, address: SocketAddr) {
    connection(app, io, Connection { address: address.ip(), tls: false }).await;
}

/// Serves one connection, HTTP/1.1 or HTTP/2; each request carries where it came from.
async fn connection<I>(app: Router, io: TokioIo<I>, from: Connection)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = app.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(from);
        request
    });
    let served =
        Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(io, TowerToHyperService::new(service)).await;
    if let Err(error) = served {
        debug!("connection from {} ended: {error}", from.address);
    }
}

/// What the gateway does with the connection of an agent.
pub fn link(agents: Agents, cancel: CancellationToken) -> Sink {
    Arc::new(move |stream, peer| {
        let (agents, cancel) = (agents.clone(), cancel.clone());
        let caller = match peer.node.as_ref().map(|(cluster, node)| (cluster.parse(), node.parse())) {
            None => None,
            Some((Ok(cluster), Ok(node))) => Some(Caller { cluster, node }),
            // A certificate of ours that names no cluster and node of ours: nobody to speak to.
            Some(_) => return,
        };
        tokio::spawn(async move { agents.serve(stream, caller, cancel).await });
    })
}
