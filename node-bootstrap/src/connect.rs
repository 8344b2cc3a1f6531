//! Outbound connections to the gateway: TCP, through an HTTP proxy if the environment names one, then TLS with a pinned CA.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::proxy::Proxy;

/// How long TCP, proxy and TLS together may take.
const LIMIT: Duration = Duration::from_secs(10);

/// After so much silence TCP asks whether the other end is there; after twice that it is not.
const SILENCE: Duration = Duration::from_secs(30);

/// A connection that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP.
    #[error("connect to {peer}")]
    Tcp {
        /// Gateway or proxy, as `host:port`.
        peer: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The proxy refused.
    #[error("proxy {peer} answered {said:?}")]
    Proxy {
        /// The proxy.
        peer: String,
        /// Its first line.
        said: String,
    },
    /// The proxy variable cannot be used.
    #[error("HTTPS_PROXY must look like http://host:port (TLS to the proxy itself is not supported)")]
    ProxyUrl,
    /// TLS: the wrong certificate, or something in between.
    #[error("tls with {peer} as {name}: is this the right CA, or does something on the way intercept TLS?")]
    Tls {
        /// The gateway.
        peer: String,
        /// The name asked for.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name that is no DNS name.
    #[error("{0:?} is not a DNS name")]
    Name(String),
    /// Nobody answered in time.
    #[error("{peer} did not answer within {} s", LIMIT.as_secs())]
    Slow {
        /// The gateway.
        peer: String,
    },
    /// A CA, certificate or key that cannot be used.
    #[error("use the {what} given: {reason}")]
    Material {
        /// Which.
        what: &'static str,
        /// Why; never its text.
        reason: String,
    },
}

/// Dials one gateway.
#[derive(Debug, Clone)]
pub struct Dialer {
    server: String,
    proxy: Option<Proxy>,
}

fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).or_else(|_| std::env::var(name.to_lowercase())).ok();
    value.filter(|value| !value.trim().is_empty())
}

impl Dialer {
    /// A dialer for `host:port` that minds `HTTPS_PROXY` and `NO_PROXY`.
    pub fn from_env(server: &str) -> Result<Self, ConnectError> {
        Self::new(server, variable("HTTPS_PROXY"), variable("NO_PROXY"))
    }

    /// A dialer for `host:port` with these proxy settings.
    pub fn new(server: &str, proxy: Option<String>, no_proxy: Option<String>) -> Result<Self, ConnectError> {
        let no_proxy = no_proxy.unwrap_or_default();
        let proxy = proxy.map(|url| Proxy::for_gateway(server, &url, &no_proxy)).transpose()?;
        Ok(Self { server: server.to_owned(), proxy: proxy.flatten() })
    }

    /// The gateway, `host:port`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Who is dialled first: the proxy, or the gateway itself.
    pub fn first_hop(&self) -> &str {
        self.proxy.as_ref().map_or(&self.server, |proxy| &proxy.peer)
    }

    /// A TLS connection whose server proved to be `name`.
    pub async fn tls(&self, config: Arc<ClientConfig>, name: &str) -> Result<TlsStream<TcpStream>, ConnectError> {
        let slow = |_| ConnectError::Slow { peer: self.server.clone() };
        tokio::time::timeout(LIMIT, self.tls_unlimited(config, name)).await.map_err(slow)?
    }

    async fn tls_unlimited(&self, config: Arc<ClientConfig>, name: &str) -> Result<TlsStream<TcpStream>, ConnectError> {
        let sni = ServerName::try_from(name.to_owned()).map_err(|_| ConnectError::Name(name.to_owned()))?;
        let stream = self.tcp().await?;
        let tls = |source| ConnectError::Tls { peer: self.server.clone(), name: name.to_owned(), source };
        TlsConnector::from(config).connect(sni, stream).await.map_err(tls)
    }

    async fn tcp(&self) -> Result<TcpStream, ConnectError> {
        let peer = self.first_hop().to_owned();
        let tcp = |source| ConnectError::Tcp { peer: peer.clone(), source };
        let mut stream = TcpStream::connect(&peer).await.map_err(tcp)?;
        stream.set_nodelay(true).map_err(tcp)?;
        // A gateway or proxy that vanished without a word is noticed also where nothing is being said.
        let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE / 3).with_retries(3);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        if let Some(proxy) = &self.proxy {
            proxy.connect(&mut stream, &self.server).await?;
        }
        Ok(stream)
    }
}

/// A TLS client that trusts one CA (or a bundle of them) and nothing else. `identity`: certificate chain and key, PEM.
pub fn tls_config(
    ca_pem: &str,
    identity: Option<(&str, &str)>,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, ConnectError> {
    let material = |what, reason: String| ConnectError::Material { what, reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| material("CA", error.to_string()))?;
        roots.add(certificate).map_err(|error| material("CA", error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(material("CA", "it holds no certificate".into()));
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
            let chain = chain.map_err(|error| material("certificate", error.to_string()))?;
            let key =
                PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| material("key", "not a PEM key".into()))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| material("certificate", error.to_string()))?
        }
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn an_empty_ca_is_refused() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        assert!(tls_config("", None, b"h2").is_err());
    }

    #[tokio::test]
    async fn a_refusing_proxy_is_quoted() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let count = stream.read(&mut head).await.unwrap();
            assert!(head[..count].starts_with(b"CONNECT 192.0.2.1:443 HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
        });
        let dialer = Dialer::new("192.0.2.1:443", Some(proxy), None).unwrap();
        let error = dialer.tcp().await.unwrap_err();
        assert!(error.to_string().contains("407"), "{error}");
    }
}
