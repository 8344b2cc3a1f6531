//! The head of an HTTP/1.1 CONNECT, as kube-apiserver's egress selector sends it.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::tunnel::{refusal::Refusal, target::Target};

/// Bytes of a head, at most.
const MAX_HEAD: usize = 8 * 1024;

/// A CONNECT that could be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConnectRequest {
    /// What it asks for.
    pub(crate) target: Target,
    /// Bytes that came after the head: already the client's.
    pub(crate) early: Bytes,
}

/// Reads up to the empty line. The caller bounds the time. Every error is an answer; a client that left gets none.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<ConnectRequest, Refusal> {
    let mut bytes = BytesMut::with_capacity(512);
    let end = loop {
        if let Some(end) = find_end(&bytes) {
            break end;
        }
        if bytes.len() >= MAX_HEAD {
            return Err(Refusal::new(431, "CONNECT header too large"));
        }
        match from.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(Refusal::new(400, "connection closed before CONNECT completed")),
            Ok(_) => {}
        }
    };
    let head = bytes.split_to(end).freeze();
    Ok(ConnectRequest { target: parse(&head)?, early: bytes.freeze() })
}

fn find_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn parse(head: &[u8]) -> Result<Target, Refusal> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Refusal::new(400, "request line is not UTF-8"))?;
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["CONNECT", authority, "HTTP/1.1" | "HTTP/1.0"] => Target::parse(authority),
        [_, _, "HTTP/1.1" | "HTTP/1.0"] => Err(Refusal::new(405, "only CONNECT host:port is served here")),
        _ => Err(Refusal::new(400, "expected CONNECT host:port HTTP/1.1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(bytes: impl AsRef<[u8]>) -> Result<ConnectRequest, Refusal> {
        read(&mut bytes.as_ref()).await
    }

    #[tokio::test]
    async fn as_kube_apiserver_sends_it() {
        let head = of("CONNECT web-1:10250 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await.unwrap();
        assert_eq!(head.target.to_string(), "web-1:10250");
        assert!(head.early.is_empty());
    }

    #[tokio::test]
    async fn bytes_behind_the_head_are_kept() {
        let head = of(b"CONNECT 10.96.0.1:443 HTTP/1.1\r\n\r\n\x16\x03\x01").await.unwrap();
        assert_eq!(&head.early[..], b"\x16\x03\x01");
    }

    #[tokio::test]
    async fn what_is_no_connect() {
        assert_eq!(of("GET / HTTP/1.1\r\n\r\n").await.unwrap_err().status, 405);
        assert_eq!(of("CONNECT web-1:10250\r\n\r\n").await.unwrap_err().status, 400);
        assert_eq!(of(b"\xff\xff \r\n\r\n").await.unwrap_err().status, 400);
        assert_eq!(of("CONNECT web-1:10250 HTTP/1.1\r\n").await.unwrap_err().status, 400);
        assert_eq!(of("x".repeat(MAX_HEAD + 600)).await.unwrap_err().status, 431);
    }
}
