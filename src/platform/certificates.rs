//! The platform's own CA and the gateway's certificate: the CA is made once and kept encrypted, the leaf follows addresses.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use gateway::Gateway;
use migrations::Store;
use provisioner::SystemKeys;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tenant_controlplane::pki::{PlatformNames, PlatformPki};
use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::instance::Instance;
use node_linux::files::write_public;

const SETTING: &str = "platform.pki";
/// Where the chain that the gateway shows lies for `doctor`, below the data directory.
pub const GATEWAY_CERTIFICATE: &str = "run/gateway.crt";

/// What the gateway shows, and what everybody else pins.
pub struct Certificates {
    /// The CA's certificate, PEM; public.
    pub ca_pem: String,
    /// The same in a file for curl and the CLI.
    pub ca_file: PathBuf,
    /// The gateway's chain.
    pub chain: Vec<CertificateDer<'static>>,
    /// The gateway's key.
    pub key: PrivateKeyDer<'static>,
}

/// A leaf is good for a year; a platform that is never stopped gets a new one each week.
const RENEWAL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Gives the gateway fresh certificates for as long as it runs. One that cannot be made is tried for again a week later: there is
/// most of a year left.
pub async fn keep_fresh(
    store: Store,
    (instance, domain, ips): (Instance, String, Vec<IpAddr>),
    gateway: Gateway,
    cancel: CancellationToken,
) {
    while cancel.run_until_cancelled(sleep(RENEWAL)).await.is_some() {
        let made = load_or_create(&store, &instance, &domain, &ips).await;
        let renewed = made.and_then(|made| Ok(gateway.set_certificate(made.chain, made.key)?));
        if let Err(error) = renewed {
            warn!("the gateway's certificate is not renewed: {error:#}");
        }
    }
}

/// Reads the CA or makes it, and issues a fresh certificate for today's addresses.
pub async fn load_or_create(store: &Store, instance: &Instance, domain: &str, ips: &[IpAddr]) -> Result<Certificates> {
    let names = PlatformNames { domain, names: &[], ips };
    let now = OffsetDateTime::now_utc();
    let made = PlatformPki::generate(&names, now, &SystemKeys).context("make the platform's CA")?;
    let kept =
        store.settings().put_secret_new(SETTING, &made.to_secret_json()?).await.context("keep the platform's CA")?;
    let kept = PlatformPki::from_secret_json(&kept).context("read the platform's CA")?;
    let fresh = kept.with_new_server(&names, now, &SystemKeys).context("issue the gateway's certificate")?;
    let ca_pem = fresh.ca.trust_pem();
    let ca_file = instance.path("ca.crt");
    write_public(&ca_file, ca_pem.as_bytes())?;
    write_public(&instance.path(GATEWAY_CERTIFICATE), fresh.server.cert_pem.as_bytes())?;
    let chain = CertificateDer::pem_slice_iter(fresh.server.cert_pem.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(fresh.server.key_pem.as_bytes());
    Ok(Certificates {
        ca_pem,
        ca_file,
        chain: chain.context("read the gateway's certificate")?,
        key: key.context("read the gateway's key")?,
    })
}
