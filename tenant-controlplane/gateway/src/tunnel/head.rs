//! The head of an HTTP/1.1 CONNECT, as kube-apiserver's egress selector sends it.

use bytes::{Bytes, BytesMut};
use node_protocol::header::CLUSTER;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::tunnel::{refusal::Refusal, target::Target};

/// Bytes of a head, at most.
const MAX_HEAD: usize = 8 * 1024;

/// Header fields of a head, at most; kube-apiserver sends three.
const MAX_HEADERS: usize = 32;

/// A CONNECT that could be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConnectRequest {
    /// What it asks for.
    pub(crate) target: Target,
    /// The cluster it is for, which only other gateways say.
    pub(crate) cluster: Option<String>,
    /// Bytes that came after the head: already the client's.
    pub(crate) early: Bytes,
}

/// Reads up to the empty line. The caller bounds the time. Every error is an answer; a client that left gets none.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<ConnectRequest, Refusal> {
    let mut bytes = BytesMut::with_capacity(512);
    loop {
        if let Some((target, cluster, end)) = parse(&bytes)? {
            return Ok(ConnectRequest { target, cluster, early: bytes.split_off(end).freeze() });
        }
        if bytes.len() >= MAX_HEAD {
            return Err(Refusal::new(431, "CONNECT header too large"));
        }
        match from.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(Refusal::new(400, "connection closed before CONNECT completed")),
            Ok(_) => {}
        }
    }
}

/// The target, the cluster if it is said, and the length of the head; `None` while it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<(Target, Option<String>, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let end = match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::new(431, "too many CONNECT headers")),
        Err(_) => return Err(Refusal::new(400, "expected CONNECT host:port HTTP/1.1")),
    };
    match (request.method, request.path) {
        (Some("CONNECT"), Some(authority)) => {
            let named = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(CLUSTER));
            let cluster = named.and_then(|header| std::str::from_utf8(header.value).ok()).map(ToOwned::to_owned);
            Ok(Some((Target::parse(authority)?, cluster, end)))
        }
        _ => Err(Refusal::new(405, "only CONNECT host:port is served here")),
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
        assert!(head.early.is_empty() && head.cluster.is_none());
    }

    #[tokio::test]
    async fn as_another_gateway_sends_it() {
        let head = of("CONNECT web-1:10250 HTTP/1.1\r\nX-Pilothouse-Cluster: cls_1\r\n\r\n").await.unwrap();
        assert_eq!(head.cluster.as_deref(), Some("cls_1"));
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
        assert_eq!(of("CONNECT web-1:10250 HTTP/1.1\r\nno header\r\n\r\n").await.unwrap_err().status, 400);
        assert_eq!(of("x".repeat(MAX_HEAD + 600)).await.unwrap_err().status, 431);
        let many = "X: y\r\n".repeat(MAX_HEADERS + 1);
        assert_eq!(of(format!("CONNECT web-1:10250 HTTP/1.1\r\n{many}\r\n")).await.unwrap_err().status, 431);
    }
}
