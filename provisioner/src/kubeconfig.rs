//! File kubeconfigs: a client certificate whose name is unique to the file, signed by the cluster's client CA. The key is made here, goes
//! into the file, and is kept nowhere.

use migrations::{Kubeconfig, Store, StoreError};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::kubeconfig::{KubeconfigInput, UserAuth, kubeconfig};
use tenant_controlplane::pki::{PkiError, Validity, issue, kubeconfig_user};
use tenant_controlplane::sni;
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

use crate::config::Facts;
use crate::keys::SystemKeys;

/// Why a kubeconfig cannot be issued.
#[derive(Debug, Error)]
pub enum KubeconfigError {
    /// The cluster has no keys yet; it will in a moment.
    #[error("the cluster is still being created: try again in a few seconds")]
    NotYet,
    /// It was revoked, or its time is over, or it is another cluster's.
    #[error("the kubeconfig is revoked or has expired: issue a new one")]
    Over,
    /// The store failed.
    #[error("read the cluster's keys")]
    Store(#[source] StoreError),
    /// The certificate could not be made.
    #[error("sign the certificate")]
    Sign(#[source] PkiError),
}

/// Issues the file's text: YAML with a private key in it, to be handed over once and written nowhere.
///
/// # Errors
/// [`KubeconfigError`].
pub async fn issue_kubeconfig(
    store: &Store,
    facts: &Facts,
    cluster: ClusterId,
    kcf: &Kubeconfig,
) -> Result<String, KubeconfigError> {
    let now = OffsetDateTime::now_utc();
    if kcf.cluster != cluster || kcf.revoked_at.is_some() || kcf.expires_at <= now {
        return Err(KubeconfigError::Over);
    }
    let pki = store.pki().get(cluster).await.map_err(KubeconfigError::Store)?.ok_or(KubeconfigError::NotYet)?;
    let row = store.clusters().load(cluster).await.map_err(KubeconfigError::Store)?;
    let validity = Validity { not_after: kcf.expires_at, ..Validity::from_now(now, time::Duration::ZERO) };
    let leaf =
        issue(&pki.client.current, &kubeconfig_user(kcf.id), validity, &SystemKeys).map_err(KubeconfigError::Sign)?;
    if let Some(serial) = serial(&leaf.cert_pem) {
        store.kubeconfigs().set_serial(kcf.id, &serial).await.map_err(KubeconfigError::Store)?;
    }
    Ok(kubeconfig(&KubeconfigInput {
        name: row.name.as_str(),
        server_url: &format!("https://{}", facts.placement.advertised),
        tls_server_name: Some(&sni::api(cluster, &facts.domain)),
        ca_pem: &pki.serving.trust_pem(),
        user: UserAuth::ClientCert { cert_pem: &leaf.cert_pem, key_pem: &leaf.key_pem },
    }))
}

/// The certificate's serial number, hex.
fn serial(pem: &str) -> Option<String> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    pem.parse_x509().ok().map(|certificate| certificate.raw_serial_as_string())
}
