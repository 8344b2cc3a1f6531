//! A TCP connection that can be cancelled from outside, wherever the TLS stream around it has gone.
//!
//! Streams handed to sinks live in other people's tasks; a removed node's or a deleted cluster's must end all the same.
//! Cutting makes every read and write fail, so its owner drops it. The socket itself is shared, so that a relay that
//! neither reads nor writes just now can still hear that the other end is gone.

use std::{
    any::Any,
    io,
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::task_tracker::TaskTrackerToken,
};

use crate::{
    claim::{Claim, HeldPermit},
    counters::Live,
};

/// A decrypted stream as sinks get it.
pub type TlsStream = tokio_rustls::server::TlsStream<Conn>;

/// The TCP connection under a [`TlsStream`]; fails with [`io::ErrorKind::ConnectionAborted`] once it was cut.
#[derive(Debug)]
pub struct Conn {
    tcp: Arc<TcpStream>,
    cancel: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _live: Option<(Live, TaskTrackerToken)>,
    _permit: Option<Box<dyn Any + Send + Sync>>,
    held: Option<Arc<HeldPermit>>,
}

impl Conn {
    /// A connection whose owner is not known yet: the handshake decides.
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp: Arc::new(tcp), cancel: None, _live: None, _permit: None, held: None }
    }

    /// Puts the connection on its owner's leash; for as long as it exists it is counted, and a stopping gateway waits
    /// for it.
    pub(crate) fn bind(&mut self, token: CancellationToken, live: (Live, TaskTrackerToken)) {
        self.cancel = Some(Box::pin(token.cancelled_owned()));
        self._live = Some(live);
    }

    /// Keeps a permit for as long as the connection exists.
    pub(crate) fn hold(&mut self, permit: impl Any + Send + Sync) {
        self._permit = Some(Box::new(permit));
    }

    /// Keeps a permit that its claim can move, for as long as the connection exists.
    pub(crate) fn occupy(&mut self, held: Arc<HeldPermit>) {
        self.held = Some(held);
    }

    /// The connection's claim, where it has a permit that its sink should keep up to date.
    pub fn claim(&self) -> Option<Claim> {
        self.held.as_ref().map(Claim::of)
    }

    /// The socket, for its settings and its errors.
    pub(crate) fn socket(&self) -> Arc<TcpStream> {
        self.tcp.clone()
    }

    /// Fails once the connection was cut.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cancel.as_mut().map(|cancel| cancel.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }

    /// Tries until it does not block, or the socket is not writable.
    fn write_with(
        &mut self,
        cx: &mut Context<'_>,
        attempt: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            match attempt(&self.tcp) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.tcp.try_read(buf.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => {
                    buf.advance(outcome?);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write_with(cx, |tcp| tcp.try_write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write_with(cx, |tcp| tcp.try_write_vectored(bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.tcp).shutdown(Shutdown::Write))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
