//! Clients of tenants' API servers, each for one address and one identity, and what is asked of a control plane without a client.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ::kube::Config;
use ::kube::config::AuthInfo;
use async_trait::async_trait;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use tenant_controlplane::component::etcd::HEALTH_PORT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CONNECT_LIMIT, HEALTH_LIMIT, KubeApi, PROBE_LIMIT, bounded, unusable};
use crate::host::{Announced, ApiError, Connector, Door, Kubernetes, Site, handshake};

/// Opens doors with the `kube` client.
#[derive(Clone, Copy, Debug, Default)]
pub struct KubeConnector;

#[async_trait]
impl Connector for KubeConnector {
    async fn is_full(&self, etcd: Ipv4Addr) -> Option<bool> {
        let answer = tokio::time::timeout(PROBE_LIMIT, ask_health(etcd)).await.ok()?.ok()?;
        read_fullness(answer.split_once("\r\n\r\n")?.1)
    }

    async fn announced(&self, site: &Site) -> Result<Announced, ApiError> {
        let answer = tokio::time::timeout(PROBE_LIMIT, handshake::announced(site)).await;
        answer.map_err(|_| ApiError::Timeout)?.map_err(ApiError::Unreachable)
    }

    fn connect(&self, door: &Door) -> Result<Arc<dyn Kubernetes>, ApiError> {
        let site = &door.site;
        let url = format!("https://{}", site.address).parse().map_err(unusable)?;
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(site.ca_pem.as_bytes()).collect();
        let mut config = Config::new(url);
        config.root_cert = Some(roots.map_err(unusable)?.iter().map(|root| root.to_vec()).collect());
        config.tls_server_name = Some(site.server_name.clone());
        config.connect_timeout = Some(CONNECT_LIMIT);
        // A probe wants the first answer, not the third.
        config.default_retry = false;
        config.auth_info = AuthInfo {
            client_certificate_data: Some(base64(&door.identity.cert_pem)),
            client_key_data: Some(base64(&door.identity.key_pem).into()),
            ..AuthInfo::default()
        };
        Ok(Arc::new(KubeApi::new(bounded(config)?)))
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// What etcd answers on its plain port, header and all: one question to one address of ours needs no client.
async fn ask_health(etcd: Ipv4Addr) -> std::io::Result<String> {
    let mut connection = TcpStream::connect((etcd, HEALTH_PORT)).await?;
    connection.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    connection.take(HEALTH_LIMIT).read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Reads etcd's `/health`: `{"health":"false","reason":"ALARM NOSPACE"}` for one that has reached its quota.
fn read_fullness(text: &str) -> Option<bool> {
    let answer: Value = serde_json::from_str(text).ok()?;
    let reason = answer["reason"].as_str().unwrap_or_default();
    answer["health"].as_str().map(|_| reason.contains("NOSPACE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_etcd_says_so() {
        assert_eq!(read_fullness(r#"{"health":"true","reason":""}"#), Some(false));
        assert_eq!(read_fullness(r#"{"health":"false","reason":"ALARM NOSPACE"}"#), Some(true));
        assert_eq!(read_fullness(r#"{"health":"false","reason":"RAFT NO LEADER"}"#), Some(false));
        assert_eq!(read_fullness("404 page not found"), None);
    }
}
