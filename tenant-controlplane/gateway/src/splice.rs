//! Bytes both ways between two connections, until both directions have ended, or one has and the other goes on for too long.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// Copy buffer per direction, bytes: idle connections (watches) are many, bulk is rare.
const BUFFER: usize = 16 * 1024;

/// How long one direction may go on after the other has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpliceTimeouts {
    /// After the client closed its side.
    pub(crate) with_server: Duration,
    /// After the server closed its side.
    pub(crate) with_client: Duration,
}

/// Called whenever bytes went, in either direction.
pub(crate) type Used<'a> = &'a (dyn Fn() + Send + Sync);

/// Copies client to server and back. Each is its reading and its writing half.
///
/// # Errors
/// A connection that broke, or one half that outlived the other for too long (`TimedOut`).
pub(crate) async fn splice(
    inbound: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    server: (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    timeouts: SpliceTimeouts,
    used: Used<'_>,
) -> io::Result<()> {
    let mut up = std::pin::pin!(pass(inbound.0, server.1, used));
    let mut down = std::pin::pin!(pass(server.0, inbound.1, used));
    tokio::select! {
        ended = &mut up => {
            ended?;
            timeout(timeouts.with_server, down).await?
        }
        ended = &mut down => {
            ended?;
            timeout(timeouts.with_client, up).await?
        }
    }
}

/// One direction: all bytes, then the end.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, used: Used<'_>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        used();
        to.write_all(&buffer[..read]).await?;
        // TLS may hold the end of it back.
        to.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex, split};

    /// A client's and a server's far ends, with a splice between them.
    fn spliced(timeouts: SpliceTimeouts) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
        let ((inbound, near), (far, server)) = (duplex(4096), duplex(4096));
        let task = tokio::spawn(async move { splice(split(near), split(far), timeouts, &|| {}).await });
        (inbound, server, task)
    }

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (mut inbound, mut server, task) = spliced(SpliceTimeouts { with_server: LONG, with_client: LONG });
        inbound.write_all(b"all of it").await.unwrap();
        inbound.shutdown().await.unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "all of it");
        server.write_all(&[7; 1000]).await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        inbound.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.len(), 1000);
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_visitor_does_not_keep_what_the_server_has_left() {
        let (inbound, mut server, task) = spliced(SpliceTimeouts { with_server: LONG, with_client: SHORT });
        server.shutdown().await.unwrap();
        assert_eq!(task.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(inbound);
    }

    #[tokio::test]
    async fn a_silent_server_does_not_keep_what_the_visitor_has_left() {
        let (mut inbound, server, task) = spliced(SpliceTimeouts { with_server: SHORT, with_client: LONG });
        inbound.shutdown().await.unwrap();
        assert_eq!(task.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(server);
    }
}
