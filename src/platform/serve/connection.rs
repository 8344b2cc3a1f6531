//! One connection of the portal, HTTP/1.1 or HTTP/2, and its bounds: streams, headers, buffers, idleness and age.
//!
//! A stranger may do all that is done here, so none of it may cost much: 16 streams at a time (RFC 9113 section 5.1.2), of which each
//! holds 16 KiB for sending and the connection 256 KiB of received bodies; header lists of 32 KiB; streams that are opened and
//! reset (CVE-2023-44487) end the connection after [`RESETS`] that were not even looked at. A connection without a request ends
//! after a minute, one whose answers nobody reads after two, and any after a quarter of an hour, its last streams five minutes later.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use gateway::Claim;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use portal::{Connection, CredentialSeen};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};
use tower::ServiceExt;
use tracing::debug;

use super::activity::{Activity, Answered, Asked, Running, Unused};
use super::memory::{Held, Memory};

/// Requests at a time on one connection.
const STREAMS: u32 = 16;
/// Bytes of an answer that wait to be sent, each stream.
const SEND_BUFFER: usize = 16 << 10;
/// Bytes of a body that may come before it is read: one stream, and all of a connection.
const WINDOWS: (u32, u32) = (64 << 10, 256 << 10);
/// Bytes of all header fields of a request.
const HEADERS: u32 = 32 << 10;
/// The same for HTTP/1, where it also bounds what waits to be sent; and how many fields.
const HTTP1: (usize, usize) = (64 << 10, 100);
/// Streams that were reset before they were accepted, or for errors of the peer's, before the connection ends.
const RESETS: usize = 20;
/// These say whether the platform is well, and are answered also when memory is short.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];
/// Seconds that a request is told to wait when memory is short.
const RETRY_AFTER: u64 = 5;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A connection's first byte, the head of a request, and the answer to a ping.
    pub word: Duration,
    /// Without a request.
    pub idle: Duration,
    /// With requests of which none moves.
    pub stalled: Duration,
    /// In all.
    pub age: Duration,
    /// For the streams that run then.
    pub last: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let [word, idle, stalled, age, last] = [30, 60, 120, 900, 300].map(Duration::from_secs);
        Self { word, idle, stalled, age, last }
    }
}

/// What serves a connection's requests.
#[derive(Clone)]
pub struct Portal {
    app: Router,
    memory: Memory,
    times: Times,
}

/// What one connection's requests share.
#[derive(Clone)]
struct Served {
    app: Router,
    from: Connection,
    activity: Arc<Activity>,
    held: Arc<Held>,
    claim: Option<Claim>,
}

impl Portal {
    /// The same, within the same bounds, with `layer` around what it serves.
    pub fn layered(&self, layer: impl FnOnce(Router) -> Router) -> Self {
        Self { app: layer(self.app.clone()), ..self.clone() }
    }

    /// Serves `app` within the usual times.
    pub fn new(app: Router) -> Self {
        Self { app, memory: Memory::default(), times: Times::default() }
    }

    /// Serves one connection to its end; `claim` is its place among others.
    pub async fn serve<I>(&self, io: I, from: Connection, claim: Option<Claim>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let place = claim.clone();
        let activity = Activity::new(move || place.iter().for_each(Claim::touch));
        let (app, held) = (self.app.clone(), self.memory.connection());
        let served = Served { app, from, activity: activity.clone(), held, claim };
        let service = service_fn(move |request| served.clone().answer(request));
        let times = self.times;
        let builder = builder(times.word);
        let io = TokioIo::new(Prompt { io, end: Some(Box::pin(sleep(times.word))) });
        let mut connection = pin!(builder.serve_connection(io, service));
        let why = tokio::select! {
            ended = connection.as_mut() => return note(from, ended),
            unused = activity.unused(times.idle, times.stalled) => Some(unused),
            () = sleep(times.age) => None,
        };
        debug!("connection from {} ends: {}", from.address, why.map_or("old", Unused::word));
        if why == Some(Unused::Stalled) {
            return;
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = timeout(times.last, connection) => note(from, ended.unwrap_or(Ok(()))),
            _ = activity.unused(times.word, times.stalled) => {}
        }
    }
}

fn note(from: Connection, ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        debug!("connection from {} ended: {error}", from.address);
    }
}

impl Unused {
    fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Stalled => "its answers are not read",
        }
    }
}

impl Served {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let running = self.activity.begin();
        let shed = || self.claim.as_ref().is_some_and(Claim::shed);
        if !PROBES.contains(&request.uri().path()) && !self.held.room(shed).await {
            return Ok(self.answered(portal::overloaded(RETRY_AFTER), running));
        }
        let (charges, expected) = (Arc::<Mutex<Vec<_>>>::default(), self.held.expect());
        let mut request = request.map(|body| Asked::new(body, self.held.clone(), charges.clone()));
        request.extensions_mut().insert(self.from);
        if let Some(claim) = self.claim.clone() {
            request.extensions_mut().insert(CredentialSeen::new(move || claim.authenticate()));
        }
        let Ok(response) = self.app.clone().oneshot(request).await;
        charges.lock().unwrap_or_else(PoisonError::into_inner).clear();
        drop(expected);
        Ok(self.answered(response, running))
    }

    fn answered(&self, response: Response<Body>, running: Running) -> Response<Body> {
        response.map(|body| Body::new(Answered::new(body, self.held.clone(), running)))
    }
}

fn builder(word: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    let (buffer, fields) = HTTP1;
    builder.http1().timer(TokioTimer::new()).header_read_timeout(word).max_buf_size(buffer).max_headers(fields);
    let (stream, connection) = WINDOWS;
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(word)
        .keep_alive_timeout(word)
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(stream)
        .initial_connection_window_size(connection)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(RESETS);
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

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
