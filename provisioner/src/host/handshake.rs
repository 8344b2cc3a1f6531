//! A TLS handshake for the sake of one word in it: the authorities that the server would believe a client of (RFC 8446, 4.2.4; RFC 5246,
//! 7.4.4). No certificate is shown, and no request is sent.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Announced, Site};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Has no certificate, and remembers whose would have been welcome.
#[derive(Debug, Default)]
struct Listener(Mutex<Option<Announced>>);

impl ResolvesClientCert for Listener {
    fn resolve(&self, authorities: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let named = authorities.iter().map(|name| name.to_vec()).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(named);
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The authorities that the server names; none when it asks for no certificate.
pub(super) async fn announced(site: &Site) -> Result<Announced, Failure> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(site.ca_pem.as_bytes()) {
        roots.add(root?)?;
    }
    let listener = Arc::new(Listener::default());
    let config = ClientConfig::builder().with_root_certificates(roots).with_client_cert_resolver(listener.clone());
    let name = ServerName::try_from(site.server_name.clone())?;
    let tcp = TcpStream::connect(&site.address).await?;
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    Ok(listener.0.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default())
}
