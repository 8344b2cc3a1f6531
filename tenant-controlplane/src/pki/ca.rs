//! Certificate authorities, kept as bundles (current and previous) from the first day so that rotating one is a change of data only.

use std::fmt;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::leaf::{Validity, serial};
use super::{KeySource, PkiError};

const LIFETIME: Duration = Duration::days(3650);

/// What a CA of a cluster vouches for. One CA for each: see the module's story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaKind {
    /// The API server's own certificate; what kubeconfigs trust.
    Serving,
    /// Clients of the API server and of kubelets: people, controllers, kubelets, kube-proxies.
    Client,
    /// Kubelets' serving certificates; what the API server trusts when it dials a node.
    Kubelet,
    /// The API server as front proxy of aggregated APIs.
    FrontProxy,
    /// etcd's server and its one client.
    Etcd,
    /// Node agents and the API server's egress at the gateway.
    Link,
}

impl CaKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Serving, Self::Client, Self::Kubelet, Self::FrontProxy, Self::Etcd, Self::Link];

    /// The kind as it stands in the CA's common name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Client => "client",
            Self::Kubelet => "kubelet",
            Self::FrontProxy => "front-proxy",
            Self::Etcd => "etcd",
            Self::Link => "link",
        }
    }
}

/// A CA's certificate and key. `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ca {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The private key, PKCS#8 PEM.
    #[serde(with = "super::secret")]
    pub key_pem: Zeroizing<String>,
}

impl Ca {
    /// Makes a self-signed CA that may sign leaves and no further CAs.
    ///
    /// # Errors
    /// [`PkiError`] when there is no key or the name cannot be used.
    pub fn generate(common_name: &str, now: OffsetDateTime, keys: &dyn KeySource) -> Result<Self, PkiError> {
        Self::constrained(common_name, Validity::from_now(now, LIFETIME), None, keys)
    }

    /// [`Ca::generate`] for a time of its own and, where given, for some names only (RFC 5280, 4.2.1.10).
    pub(super) fn constrained(
        common_name: &str,
        validity: Validity,
        names: Option<NameConstraints>,
        keys: &dyn KeySource,
    ) -> Result<Self, PkiError> {
        let key = keys.key_pair()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        (params.not_before, params.not_after) = (validity.not_before, validity.not_after);
        params.serial_number = Some(serial(&key, common_name, validity));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.name_constraints = names;
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let signed = params.self_signed(&key);
        let cert = signed.map_err(|source| PkiError::Sign { subject: common_name.to_owned(), source })?;
        Ok(Self { cert_pem: cert.pem(), key_pem: Zeroizing::new(key.serialize_pem()) })
    }

    /// The CA ready to sign.
    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, PkiError> {
        let key = KeyPair::from_pem(&self.key_pem).map_err(PkiError::Key)?;
        Issuer::from_ca_cert_pem(&self.cert_pem, key).map_err(PkiError::Ca)
    }

    /// When the CA ends; nothing it signs may live longer.
    pub(super) fn not_after(&self) -> Result<OffsetDateTime, PkiError> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(self.cert_pem.as_bytes()).map_err(|_| PkiError::Times)?;
        let certificate = pem.parse_x509().map_err(|_| PkiError::Times)?;
        Ok(certificate.validity().not_after.to_datetime())
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// A CA and, during a rotation, the one before it: the current one signs, both are trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaBundle {
    /// The one that signs.
    pub current: Ca,
    /// The certificate of the one before, PEM; its key is gone.
    pub previous: Option<String>,
}

impl CaBundle {
    /// A bundle of one.
    pub const fn new(current: Ca) -> Self {
        Self { current, previous: None }
    }

    /// The PEM certificates to trust, current first.
    pub fn trust_pem(&self) -> String {
        format!("{}{}", self.current.cert_pem, self.previous.as_deref().unwrap_or_default())
    }
}
