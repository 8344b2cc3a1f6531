//! TLS that ends at the gateway: one certificate of its own, and a trust per cluster for those who must show one.
//!
//! A cluster's configurations are kept until its trust changes. Client certificates are judged inside the handshake,
//! chain and subject both, so that a wrong one gets a TLS alert and nothing behind the handshake sees it. Sessions are
//! never resumed where a certificate is needed: each connection proves itself again.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use node_protocol::alpn;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore,
    ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::{ResolvesClientCert, danger::HandshakeSignatureValid},
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::{directory::ClusterRoute, error::GatewayError, identity::Expected};

/// Why a cluster's configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// No usable CA certificate.
    #[error("use the cluster's link trust")]
    UseTrust(#[source] VerifierBuilderError),
    /// A CA certificate does not parse, or the provider lacks TLS 1.3.
    #[error("build the cluster's TLS configuration")]
    Build(#[source] TlsError),
}

/// The TLS configurations of a gateway.
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    own: Arc<OwnCertificate>,
    portal: Arc<ServerConfig>,
    enrollment: Arc<ServerConfig>,
    clusters: Mutex<HashMap<String, ClusterTls>>,
}

/// The two configurations of one cluster, and the trust they were made from.
#[derive(Clone)]
struct ClusterTls {
    trust: Vec<CertificateDer<'static>>,
    link: Arc<ServerConfig>,
    egress: Arc<ServerConfig>,
}

/// The configurations between gateways.
pub(crate) struct GatewayTls {
    /// Of the one that is dialed.
    pub(crate) server: Arc<ServerConfig>,
    /// Of the one that dials.
    pub(crate) client: Arc<ClientConfig>,
}

impl Tls {
    /// Prepares what does not depend on a cluster.
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, GatewayError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(GatewayError::UseCertificate)?;
        let own = Arc::new(OwnCertificate(RwLock::new(Arc::new(key))));
        let portal = open(&provider, &own, &[&TLS13, &TLS12], &[alpn::GRPC, alpn::HTTP1])
            .map_err(GatewayError::UseCertificate)?;
        let enrollment = open(&provider, &own, &[&TLS13], &[alpn::GRPC]).map_err(GatewayError::UseCertificate)?;
        Ok(Self { provider, own, portal, enrollment, clusters: Mutex::default() })
    }

    /// For people.
    pub(crate) fn portal(&self) -> Arc<ServerConfig> {
        self.portal.clone()
    }

    /// For machines without a certificate.
    pub(crate) fn enrollment(&self) -> Arc<ServerConfig> {
        self.enrollment.clone()
    }

    /// For the cluster's nodes.
    pub(crate) fn link(&self, cluster: &ClusterRoute) -> Result<Arc<ServerConfig>, TrustError> {
        Ok(self.cluster(cluster)?.link)
    }

    /// For the egress selector of the cluster's API server.
    pub(crate) fn egress(&self, cluster: &ClusterRoute) -> Result<Arc<ServerConfig>, TrustError> {
        Ok(self.cluster(cluster)?.egress)
    }

    /// For other gateways, whose certificates are by these authorities: what is shown to them, as the server and as the client.
    pub(crate) fn gateways(&self, roots: RootCertStore) -> Result<GatewayTls, TrustError> {
        let roots = Arc::new(roots);
        let mut client = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(TrustError::Build)?
            .with_root_certificates(roots.clone())
            .with_client_cert_resolver(self.own.clone());
        client.alpn_protocols = owned(&[alpn::GATEWAY]);
        let server = self.closed(&roots, Expected::Gateway, &[alpn::GATEWAY])?;
        Ok(GatewayTls { server, client: Arc::new(client) })
    }

    /// Forgets a deleted cluster.
    pub(crate) fn forget(&self, cluster_id: &str) {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner).remove(cluster_id);
    }

    /// Replaces the gateway's own certificate for handshakes to come.
    pub(crate) fn set_certificate(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), GatewayError> {
        let key = CertifiedKey::from_der(chain, key, &self.provider).map_err(GatewayError::UseCertificate)?;
        *self.own.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
        Ok(())
    }

    fn cluster(&self, route: &ClusterRoute) -> Result<ClusterTls, TrustError> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clusters.get(&route.cluster_id).filter(|known| known.trust == route.link_trust) {
            return Ok(known.clone());
        }
        let fresh = self.build(route)?;
        clusters.insert(route.cluster_id.clone(), fresh.clone());
        Ok(fresh)
    }

    fn build(&self, route: &ClusterRoute) -> Result<ClusterTls, TrustError> {
        let mut roots = RootCertStore::empty();
        for certificate in &route.link_trust {
            roots.add(certificate.clone()).map_err(TrustError::Build)?;
        }
        let roots = Arc::new(roots);
        let node = Expected::NodeOf(route.cluster_id.clone());
        let egress = Expected::EgressOf(route.cluster_id.clone());
        Ok(ClusterTls {
            trust: route.link_trust.clone(),
            link: self.closed(&roots, node, &[alpn::GRPC, alpn::TUNNEL, alpn::API])?,
            egress: self.closed(&roots, egress, &[alpn::HTTP1])?,
        })
    }

    /// A configuration that demands a client certificate of one role.
    fn closed(
        &self,
        roots: &Arc<RootCertStore>,
        expected: Expected,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, TrustError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots.clone(), self.provider.clone())
            .build()
            .map_err(TrustError::UseTrust)?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(TrustError::Build)?
            .with_client_cert_verifier(Arc::new(RoleVerifier { chain, expected }))
            .with_cert_resolver(self.own.clone());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = owned(alpn);
        Ok(Arc::new(config))
    }
}

/// A configuration without client certificates.
fn open(
    provider: &Arc<CryptoProvider>,
    own: &Arc<OwnCertificate>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(own.clone());
    config.alpn_protocols = owned(alpn);
    Ok(Arc::new(config))
}

fn owned(protocols: &[&[u8]]) -> Vec<Vec<u8>> {
    protocols.iter().map(|name| name.to_vec()).collect()
}

/// The gateway's certificate, which can be replaced while it runs.
struct OwnCertificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnCertificate")
    }
}

/// Chain first, then the subject: a certificate of the right CA but another role or cluster is refused as well.
#[derive(Debug)]
struct RoleVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    expected: Expected,
}

impl ClientCertVerifier for RoleVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let refused = |_| TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        self.expected.check(end_entity).map_err(refused)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
