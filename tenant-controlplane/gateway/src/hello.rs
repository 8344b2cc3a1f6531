//! The first bytes of a connection: a TLS ClientHello, whole or in pieces, within bounds.
//!
//! The bytes go to rustls' `Acceptor` as they come and are kept as well: on passthrough they are replayed, when TLS ends
//! here the `Acceptor` goes on with what it has. Nothing of the answer depends on anything but these bytes.

use std::io;

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes a client may send before its ClientHello is complete; with post-quantum key shares it is 1.5-2 KB.
pub(crate) const MAX_HELLO: usize = 16 * 1024;

/// First byte of a TLS handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 0x16;

/// TLS alerts sent before there is a TLS connection (RFC 8446 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alert {
    /// The server cannot serve just now.
    InternalError = 80,
    /// No such name here.
    UnrecognizedName = 112,
}

impl Alert {
    /// The alert as a plaintext record: fatal, version 3.3.
    pub(crate) fn record(self) -> [u8; 7] {
        [0x15, 3, 3, 0, 2, 2, self as u8]
    }
}

/// A complete ClientHello.
pub(crate) struct Hello {
    /// rustls' view of it, ready to go on with a server configuration.
    pub(crate) accepted: Accepted,
    /// Every byte read so far, in order.
    pub(crate) raw: Vec<u8>,
}

impl Hello {
    /// The server name, if there is one that is a DNS name.
    pub(crate) fn server_name(&self) -> Option<String> {
        self.accepted.client_hello().server_name().map(str::to_owned)
    }
}

/// Why there is no ClientHello.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    /// The client closed; port scans and health checks do.
    #[error("connection closed before ClientHello completed")]
    Closed,
    /// The first byte begins neither TLS nor HTTP.
    #[error("the first byte is not TLS")]
    NotTls,
    /// An HTTP method came first.
    #[error("plain HTTP on the TLS port")]
    PlainHttp,
    /// More than [`MAX_HELLO`] bytes.
    #[error("the ClientHello is larger than {MAX_HELLO} bytes")]
    Oversized,
    /// rustls refuses it and says so with this alert record.
    #[error("accept the ClientHello")]
    Refused {
        /// Bytes to send before closing.
        alert: Vec<u8>,
        /// What rustls found wrong.
        #[source]
        error: rustls::Error,
    },
    /// The connection broke.
    #[error("read the ClientHello")]
    Read(#[source] io::Error),
}

/// Reads until the ClientHello is complete. The caller bounds the time.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Hello, HelloError> {
    let mut acceptor = Acceptor::default();
    let mut raw = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let room = chunk.len().min(MAX_HELLO + 1 - raw.len());
        let read = from.read(&mut chunk[..room]).await.map_err(HelloError::Read)?;
        if read == 0 {
            return Err(HelloError::Closed);
        }
        raw.extend_from_slice(&chunk[..read]);
        check_start(raw[0])?;
        if raw.len() > MAX_HELLO {
            return Err(HelloError::Oversized);
        }
        if let Some(accepted) = feed(&mut acceptor, &chunk[..read])? {
            return Ok(Hello { accepted, raw });
        }
    }
}

fn check_start(first: u8) -> Result<(), HelloError> {
    match first {
        HANDSHAKE => Ok(()),
        b'A'..=b'Z' => Err(HelloError::PlainHttp),
        _ => Err(HelloError::NotTls),
    }
}

/// Gives the acceptor all of `bytes` before asking it, so that none is lost behind a complete hello.
fn feed(acceptor: &mut Acceptor, mut bytes: &[u8]) -> Result<Option<Accepted>, HelloError> {
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).map_err(HelloError::Read)?;
    }
    acceptor.accept().map_err(|(error, mut alert)| {
        let mut record = Vec::new();
        let _ = alert.write_all(&mut record);
        HelloError::Refused { alert: record, error }
    })
}
