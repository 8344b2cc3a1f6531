//! Clients of tenants' API servers, each for one address and one identity, and what is asked of a control plane without a client.

use std::sync::Arc;

use ::kube::Config;
use ::kube::config::AuthInfo;
use async_trait::async_trait;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{CONNECT_LIMIT, KubeApi, PROBE_LIMIT, bounded, unusable};
use crate::host::{Announced, ApiError, Connector, Kubernetes, Site, TenantConnection, handshake};

/// Creates clients with the `kube` crate.
#[derive(Clone, Copy, Debug, Default)]
pub struct KubeConnector;

#[async_trait]
impl Connector for KubeConnector {
    async fn announced(&self, site: &Site) -> Result<Announced, ApiError> {
        let answer = tokio::time::timeout(PROBE_LIMIT, handshake::announced(site)).await;
        answer.map_err(|_| ApiError::Timeout)?.map_err(ApiError::Unreachable)
    }

    fn connect(&self, connection: &TenantConnection) -> Result<Arc<dyn Kubernetes>, ApiError> {
        let site = &connection.site;
        let url = format!("https://{}", site.address).parse().map_err(unusable)?;
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(site.ca_pem.as_bytes()).collect();
        let mut config = Config::new(url);
        config.root_cert = Some(roots.map_err(unusable)?.iter().map(|root| root.to_vec()).collect());
        config.tls_server_name = Some(site.server_name.clone());
        config.connect_timeout = Some(CONNECT_LIMIT);
        // A probe wants the first answer, not the third.
        config.default_retry = false;
        config.auth_info = AuthInfo {
            client_certificate_data: Some(base64(&connection.identity.cert_pem)),
            client_key_data: Some(base64(&connection.identity.key_pem).into()),
            ..AuthInfo::default()
        };
        Ok(Arc::new(KubeApi::new(bounded(config)?)))
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
