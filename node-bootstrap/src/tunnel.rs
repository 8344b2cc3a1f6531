//! The reverse tunnel: the agent dials out and is the HTTP/2 *server* on that connection; the gateway opens a `CONNECT` stream for
//! every connection the API server wants into this node.
//!
//! Settings (measured, see the project's facts): a stream window of 512 KiB and a connection window of 1 GiB, so that stalled
//! streams cost the others nothing; frames of 16 KiB and `TCP_NOTSENT_LOWAT` of 16 KiB, so that a keystroke does not wait behind a
//! download; a ping every 3 s, given up after 5 s. The `h2` crate itself, because aborts must stay aborts in both directions.

pub mod splice;
pub mod target;

use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Ping, PingPong, Reason};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use node_linux::{Backoff, describe};
use node_protocol::alpn;
use node_protocol::header::TUNNEL_REASON;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::link::{Link, LinkError};
use target::Targets;

/// Streams at a time, said in the settings: an unsaid limit would make one more wait in silence.
pub const STREAMS: u32 = 500;

/// What a stream may send before its reader took it, in bytes.
const STREAM_WINDOW: u32 = 512 * 1024;

/// What all streams together may: practically no limit, so that none starves.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// The frame size, in bytes; also the unsent bytes that may wait in the kernel.
pub const FRAME: u32 = 16 * 1024;

/// How long dialling a target may take: less than the gateway waits for the answer (5 s), because the API server sets no limit.
const DIAL: Duration = Duration::from_secs(4);

/// Between two pings, and until an answer is overdue.
const PINGS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(5));

/// A tunnel that ended.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// It could not be opened.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// HTTP/2 failed.
    #[error("tunnel broke")]
    Http(#[from] h2::Error),
    /// The gateway fell silent.
    #[error("the gateway did not answer a ping within {} s", PINGS.1.as_secs())]
    Silent,
}

/// Keeps a tunnel open until stopped.
pub async fn run(link: Link, targets: watch::Receiver<Targets>, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    loop {
        let session = session(&link, targets.clone(), &mut backoff);
        match stop.run_until_cancelled(session).await {
            None => return,
            Some(Ok(())) => tracing::info!("tunnel closed by the gateway; opening it again"),
            Some(Err(error)) => tracing::warn!(error = describe(&error), "tunnel lost; opening it again"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(backoff.pause())).await.is_none() {
            return;
        }
    }
}

async fn session(link: &Link, targets: watch::Receiver<Targets>, backoff: &mut Backoff) -> Result<(), TunnelError> {
    let stream = link.dial(alpn::TUNNEL).await?;
    let socket = socket2::SockRef::from(stream.get_ref().0);
    if let Err(error) = socket.set_tcp_notsent_lowat(FRAME) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT not set; interactive streams may lag behind bulk ones");
    }
    backoff.reset();
    serve(stream, targets).await
}

/// Serves one tunnel connection until it ends.
pub async fn serve<T>(io: T, targets: watch::Receiver<Targets>) -> Result<(), TunnelError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_frame_size(FRAME)
        .max_send_buffer_size(STREAM_WINDOW as usize / 2)
        .handshake::<T, Bytes>(io)
        .await?;
    let pings = connection.ping_pong();
    let mut silence = std::pin::pin!(silence(pings));
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = &mut silence => return Err(TunnelError::Silent),
        };
        match accepted {
            None => return Ok(()),
            Some(accepted) => {
                let (request, respond) = accepted?;
                let targets = targets.borrow().clone();
                tokio::spawn(stream(request, respond, targets));
            }
        }
    }
}

/// Ends when the other side stops answering pings; never ends without pings.
async fn silence(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PINGS.0).await;
        match tokio::time::timeout(PINGS.1, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return std::future::pending().await, // the connection is ending and says so itself
            Err(_) => return,
        }
    }
}

/// Why a stream gets no connection.
struct Refusal(StatusCode, String);

async fn stream(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, targets: Targets) {
    let target = match open(&request, &targets).await {
        Ok(target) => target,
        Err(refusal) => return refuse(respond, refusal),
    };
    let mut ok = Response::new(());
    *ok.status_mut() = StatusCode::OK;
    match respond.send_response(ok, false) {
        Ok(answer) => splice::splice(request.into_body(), answer, target).await,
        Err(error) => tracing::debug!(%error, "the gateway went away before the answer"),
    }
}

async fn open(request: &Request<h2::RecvStream>, targets: &Targets) -> Result<TcpStream, Refusal> {
    if request.method() != Method::CONNECT {
        return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "only CONNECT is spoken here".into()));
    }
    let asked = request.uri().authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let address = targets.resolve(asked).map_err(|reason| Refusal(StatusCode::FORBIDDEN, reason))?;
    let dialled = tokio::time::timeout(DIAL, TcpStream::connect(address)).await;
    let node = &targets.node_name;
    let target = match dialled {
        Ok(Ok(target)) => target,
        Ok(Err(error)) => {
            return Err(Refusal(StatusCode::BAD_GATEWAY, format!("node {node} cannot reach {asked}: {error}")));
        }
        Err(_) => {
            let reason = format!("node {node} got no answer from {asked} within {} s", DIAL.as_secs());
            return Err(Refusal(StatusCode::GATEWAY_TIMEOUT, reason));
        }
    };
    let _ = target.set_nodelay(true);
    Ok(target)
}

fn refuse(mut respond: SendResponse<Bytes>, Refusal(status, reason): Refusal) {
    tracing::debug!(%status, reason, "stream refused");
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    let visible: String = reason.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    if let Ok(value) = HeaderValue::from_str(&visible) {
        answer.headers_mut().insert(TUNNEL_REASON, value);
    }
    if respond.send_response(answer, true).is_err() {
        respond.send_reset(Reason::CONNECT_ERROR);
    }
}

#[cfg(test)]
#[path = "tunnel/tests.rs"]
mod tests;

#[cfg(test)]
mod fuzz_tests;
