//! Serving HTTP on the decrypted streams that the gateway hands over, and on the loopback port.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use gateway::{Peer, Sink, TlsStream};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

use portal::Connection;
use provisioner::{Agents, Caller};

/// After an accept that failed.
const REST: Duration = Duration::from_millis(50);
/// How long a connection may stay without a request: its first byte, the whole head of one, the pause between two.
const PATIENCE: Duration = Duration::from_secs(30);

/// One TLS connection that asked for the portal.
pub async fn portal(app: Router, stream: TlsStream, peer: Peer) {
    connection(app, stream, Connection { address: peer.address.ip(), tls: true }, PATIENCE).await;
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
            sleep(REST).await;
            continue;
        };
        stream.set_nodelay(true).ok();
        let from = Connection { address: address.ip(), tls: false };
        tokio::spawn(connection(app.clone(), stream, from, PATIENCE));
    }
}

/// Serves one connection, HTTP/1.1 or HTTP/2; each request carries where it came from.
async fn connection<I>(app: Router, io: I, from: Connection, patience: Duration)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = app.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(from);
        request
    });
    let io = TokioIo::new(Prompt { io, end: Some(Box::pin(sleep(patience))) });
    let served = builder(patience).serve_connection_with_upgrades(io, TowerToHyperService::new(service)).await;
    if let Err(error) = served {
        debug!("connection from {} ended: {error}", from.address);
    }
}

/// Connections cost descriptors, and whoever says nothing has no claim to one.
fn builder(patience: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(patience).keep_alive_timeout(patience);
    builder
}

/// A connection whose first byte must come in time: until then nobody knows which HTTP it speaks, and none of hyper's own
/// limits counts.
struct Prompt<I> {
    io: I,
    end: Option<Pin<Box<Sleep>>>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Prompt<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        match (&read, &mut self.end) {
            (Poll::Ready(_), _) => self.end = None,
            (Poll::Pending, Some(end)) => ready!(end.as_mut().poll(context)),
            (Poll::Pending, None) => return Poll::Pending,
        }
        if read.is_pending() { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { read }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Prompt<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    fn served(patience: Duration) -> tokio::io::DuplexStream {
        let (ours, theirs) = duplex(4096);
        let app = Router::new().route("/", axum::routing::get(|| async { "here" }));
        let from = Connection { address: [127, 0, 0, 1].into(), tls: false };
        tokio::spawn(connection(app, theirs, from, patience));
        ours
    }

    #[tokio::test]
    async fn whoever_says_nothing_or_half_a_word_is_let_go() {
        for word in ["", "GET / HT"] {
            let mut ours = served(SHORT);
            ours.write_all(word.as_bytes()).await.unwrap();
            let mut said = Vec::new();
            let ended = tokio::time::timeout(LONG, ours.read_to_end(&mut said)).await;
            assert!(ended.is_ok(), "{word:?} holds the connection");
        }
    }

    #[tokio::test]
    async fn a_request_in_time_is_answered() {
        let mut ours = served(LONG);
        ours.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut said = String::new();
        ours.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("here"), "{said}");
    }
}
