//! Bytes between an egress connection and its tunnel stream, with ends and aborts kept apart.
//!
//! - A clean end travels: close_notify becomes END_STREAM, END_STREAM becomes close_notify; the other direction goes on.
//! - An abort travels: a front that breaks off resets the stream (CONNECT_ERROR, RFC 9113 section 8.5); a stream that is
//!   reset drops the front without close_notify.
//! - Flow control: read first, then reserve, so that an idle stream holds none of the window; release only what was
//!   written to the front. A stalled reader then stalls its own stream and nothing else.

use std::{
    future::poll_fn,
    io::{self, ErrorKind},
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    conn::TlsStream,
    tunnel::{
        client::OpenedStream,
        window::{Pace, Window},
    },
};

/// Read buffer of a quiet stream, bytes.
const SMALL: usize = 2 * 1024;
/// Read buffer of a busy stream: one frame.
const LARGE: usize = 16 * 1024;
/// After a reset, what had arrived before it may still be written to the front for this long.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// Why a stream broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The API server's connection broke.
    #[error("copy on the API server connection")]
    Front(#[source] io::Error),
    /// The agent reset the stream, or the link was lost.
    #[error("copy on the tunnel stream")]
    Tunnel(#[source] h2::Error),
    /// The agent reset the stream.
    #[error("the agent reset the stream: {0}")]
    Reset(Reason),
    /// The front closed its sending side long ago and nothing comes back.
    #[error("idle after half-close")]
    Stale,
}

/// The API server's side of a stream.
pub(crate) struct Front {
    /// The connection.
    pub(crate) stream: TlsStream,
    /// Bytes that came behind the CONNECT.
    pub(crate) early: Bytes,
}

/// The directions that have ended cleanly.
#[derive(Default)]
struct Ended {
    up: CancellationToken,
    down: CancellationToken,
}

/// Moves bytes until both directions ended or one broke off.
pub(crate) async fn relay(front: Front, opened: OpenedStream, half_closed: Duration) -> Result<(), Broken> {
    let OpenedStream { mut send, mut recv, permits, charge, window } = opened;
    let socket = front.stream.get_ref().0.socket();
    let (reader, writer) = tokio::io::split(front.stream);
    let ended = Ended::default();
    let outcome = tokio::select! {
        outcome = async { tokio::try_join!(
            up(front.early, reader, &mut send, &ended),
            down(&mut recv, &window, writer, &ended, half_closed),
        )} => outcome.map(drop),
        broken = gone(&socket) => Err(broken),
    };
    if outcome.is_err() {
        send.send_reset(Reason::CONNECT_ERROR);
    }
    drop((permits, charge));
    outcome
}

/// Ready when the front's TCP connection broke: a stream stalled by its reader neither reads nor writes there.
pub(crate) async fn gone(socket: &TcpStream) -> Broken {
    match socket.ready(Interest::ERROR).await {
        Ok(_) => Broken::Front(socket.take_error().ok().flatten().unwrap_or(ErrorKind::ConnectionReset.into())),
        Err(error) => Broken::Front(error),
    }
}

/// Front to tunnel. Returns once the other direction has ended too, watching for resets all the while.
async fn up(
    early: Bytes,
    reader: impl AsyncRead + Unpin,
    send: &mut SendStream<Bytes>,
    ended: &Ended,
) -> Result<(), Broken> {
    let outcome = match pump(early, reader, send).await {
        Ok(()) => {
            ended.up.cancel();
            tokio::select! {
                broken = reset(send) => Err(broken),
                () = ended.down.cancelled() => Ok(()),
            }
        }
        broken => broken,
    };
    if let Err(Broken::Reset(_) | Broken::Tunnel(_)) = outcome {
        let _ = timeout(LAST_BYTES, ended.down.cancelled()).await;
    }
    outcome
}

async fn pump(early: Bytes, mut reader: impl AsyncRead + Unpin, send: &mut SendStream<Bytes>) -> Result<(), Broken> {
    push(send, early).await?;
    let mut size = SMALL;
    loop {
        let mut buffer = BytesMut::with_capacity(size);
        let read = tokio::select! {
            broken = reset(send) => return Err(broken),
            read = reader.read_buf(&mut buffer) => read.map_err(Broken::Front)?,
        };
        if read == 0 {
            return send.send_data(Bytes::new(), true).map_err(Broken::Tunnel);
        }
        size = if read == size {
            LARGE
        } else if read <= SMALL {
            SMALL
        } else {
            size
        };
        push(send, buffer.freeze()).await?;
    }
}

/// Sends all of `bytes` as the peer's window allows.
async fn push(send: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), Broken> {
    while !bytes.is_empty() {
        send.reserve_capacity(bytes.len());
        let granted = capacity(send).await?;
        let part = bytes.split_to(granted.min(bytes.len()));
        send.send_data(part, false).map_err(Broken::Tunnel)?;
    }
    Ok(())
}

async fn capacity(send: &mut SendStream<Bytes>) -> Result<usize, Broken> {
    poll_fn(|cx| {
        if let Poll::Ready(end) = send.poll_reset(cx) {
            return Poll::Ready(Err(why(end)));
        }
        send.poll_capacity(cx).map(|granted| match granted {
            Some(granted) => granted.map_err(Broken::Tunnel),
            None => Err(Broken::Reset(Reason::STREAM_CLOSED)),
        })
    })
    .await
}

/// Ready when the agent resets the stream or the link is lost.
async fn reset(send: &mut SendStream<Bytes>) -> Broken {
    why(poll_fn(|cx| send.poll_reset(cx)).await)
}

fn why(end: Result<Reason, h2::Error>) -> Broken {
    end.map_or_else(Broken::Tunnel, Broken::Reset)
}

/// Tunnel to front.
async fn down(
    recv: &mut RecvStream,
    window: &Window,
    mut writer: impl AsyncWrite + Unpin,
    ended: &Ended,
    half_closed: Duration,
) -> Result<(), Broken> {
    let mut pace = Pace::default();
    loop {
        let data = tokio::select! {
            data = poll_fn(|cx| recv.poll_data(cx)) => data,
            () = silent(ended, half_closed) => return Err(Broken::Stale),
        };
        let Some(data) = data else { break };
        let data = data.map_err(Broken::Tunnel)?;
        writer.write_all(&data).await.map_err(Broken::Front)?;
        writer.flush().await.map_err(Broken::Front)?;
        recv.flow_control().release_capacity(data.len()).map_err(Broken::Tunnel)?;
        window.note(&mut pace, data.len());
    }
    writer.shutdown().await.map_err(Broken::Front)?;
    ended.down.cancel();
    Ok(())
}

/// Ready `half_closed` after the front ended its direction.
async fn silent(ended: &Ended, half_closed: Duration) {
    ended.up.cancelled().await;
    sleep(half_closed).await;
}
