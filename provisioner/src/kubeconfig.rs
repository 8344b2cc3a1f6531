//! File kubeconfigs: a client certificate whose name is unique to the file, signed by an authority that is, too. Both keys are made here;
//! the certificate's goes into the file, and neither is kept.

use migrations::{Kubeconfig, Store, StoreError};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::kubeconfig::{KubeconfigInput, UserAuth, kubeconfig, name};
use tenant_controlplane::pki::{
    Ca, KubeconfigSubject, Leaf, PkiError, generate_kubeconfig_authority, issue_kubeconfig_leaf,
};
use tenant_controlplane::sni;
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

use crate::config::InstallationInfo;
use crate::keys::SystemKeys;

/// Why a kubeconfig cannot be issued.
#[derive(Debug, Error)]
pub enum KubeconfigError {
    /// The cluster has no keys yet; it will in a moment.
    #[error("the cluster is still being created: try again in a few seconds")]
    NotYet,
    /// It was revoked, or its time is over.
    #[error("the kubeconfig is revoked or has expired: issue a new one")]
    Over,
    /// The store failed.
    #[error("read the cluster's keys")]
    Store(#[source] StoreError),
    /// The certificate could not be made.
    #[error("sign the certificate")]
    Sign(#[source] PkiError),
}

/// How a file addresses its API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// By the gateway's address; `tls-server-name` says which.
    Sni,
    /// By its name.
    Dns,
    /// By a port of its own at the gateway's address.
    Port(u16),
}

/// Where a client dials and, where that does not say it, what name it asks for.
fn address(facts: &InstallationInfo, cluster: ClusterId, server: Server) -> (String, Option<String>) {
    let (advertised, name) = (facts.placement.advertised.as_str(), sni::api(cluster, &facts.domain));
    let (host, shared) = advertised.rsplit_once(':').unwrap_or((advertised, "443"));
    match server {
        Server::Sni => (format!("https://{advertised}"), Some(name)),
        Server::Dns => (format!("https://{name}:{shared}"), None),
        Server::Port(port) => (format!("https://{host}:{port}"), None),
    }
}

/// Issues the file's text: YAML with a private key in it, to be handed over once and written nowhere.
///
/// # Errors
/// [`KubeconfigError`].
pub async fn issue_kubeconfig(
    store: &Store,
    facts: &InstallationInfo,
    (kcf, server): (&Kubeconfig, Server),
) -> Result<String, KubeconfigError> {
    let (now, cluster) = (OffsetDateTime::now_utc(), kcf.cluster);
    if kcf.revoked_at.is_some() || kcf.expires_at <= now {
        return Err(KubeconfigError::Over);
    }
    let pki = store.pki().get(cluster).await.map_err(KubeconfigError::Store)?.ok_or(KubeconfigError::NotYet)?;
    let path = store.kubeconfigs().path(cluster).await.map_err(KubeconfigError::Store)?;
    let prepared = store.kubeconfigs().prepared_authority(kcf.id).await.map_err(KubeconfigError::Store)?;
    let (authority, leaf) = sign(kcf, prepared, now).map_err(KubeconfigError::Sign)?;
    let serial = serial(&leaf.cert_pem).ok_or(KubeconfigError::Sign(PkiError::Times))?;
    store.kubeconfigs().certify(kcf.id, &serial, &authority.cert_pem).await.map_err(KubeconfigError::Store)?;
    let name = name(&path.organization, &path.project, &path.cluster, kcf.id);
    let (server_url, tls_server_name) = address(facts, cluster, server);
    Ok(kubeconfig(&KubeconfigInput {
        name: &name,
        server_url: &server_url,
        tls_server_name: tls_server_name.as_deref(),
        ca_pem: &pki.serving.trust_pem(),
        user: UserAuth::ClientCert { cert_pem: &leaf.cert_pem, key_pem: &leaf.key_pem },
    }))
}

/// The file's certificate and the authority that signed it: the one that was `prepared`, or one made now.
fn sign(kcf: &Kubeconfig, prepared: Option<Ca>, now: OffsetDateTime) -> Result<(Ca, Leaf), PkiError> {
    let authority = match prepared {
        Some(authority) => authority,
        None => generate_kubeconfig_authority(kcf.id, now, &SystemKeys)?,
    };
    let subject = KubeconfigSubject { kubeconfig: kcf.id, role: kcf.role, not_after: kcf.expires_at };
    let leaf = issue_kubeconfig_leaf(&authority, subject, now, &SystemKeys)?;
    Ok((authority, leaf))
}

/// The certificate's serial number, hex.
fn serial(pem: &str) -> Option<String> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    pem.parse_x509().ok().map(|certificate| certificate.raw_serial_as_string())
}
