//! Leaf certificates: made here with a new key, or signed from a request whose every word but the public key is replaced.

use std::fmt;
use std::net::IpAddr;

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::ca::Ca;
use super::{KeySource, PkiError};

/// How far a certificate reaches back, because the clocks of those who check it differ.
const BACKDATE: Duration = Duration::minutes(5);

/// A certificate and its key. `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The private key, PKCS#8 PEM.
    #[serde(with = "super::secret")]
    pub key_pem: Zeroizing<String>,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Usage {
    /// To prove who calls.
    #[default]
    Client,
    /// To prove who answers.
    Server,
    /// Both.
    Both,
}

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Subject {
    /// Common name: the user, to Kubernetes.
    pub cn: String,
    /// Organizations: the groups, to Kubernetes.
    pub o: Vec<String>,
    /// Organizational unit.
    pub ou: Option<String>,
    /// DNS names it answers to; `*.` at the beginning is a wildcard.
    pub dns_sans: Vec<String>,
    /// Addresses it answers to.
    pub ip_sans: Vec<IpAddr>,
    /// What it may be used for.
    pub usage: Usage,
}

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: OffsetDateTime,
    /// The last moment; cut to the CA's own end when signing.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From five minutes before `now` until `lifetime` after it.
    pub fn from_now(now: OffsetDateTime, lifetime: Duration) -> Self {
        Self { not_before: now.saturating_sub(BACKDATE), not_after: now.saturating_add(lifetime) }
    }

    fn within(self, end: OffsetDateTime) -> Self {
        Self { not_after: self.not_after.min(end), ..self }
    }
}

/// 16 bytes that differ for every key, name and time, without randomness (RFC 5280, 4.1.2.2 asks for unique and at most 20).
pub(super) fn serial(key: &impl PublicKeyData, common_name: &str, validity: Validity) -> SerialNumber {
    let times = (validity.not_before.unix_timestamp(), validity.not_after.unix_timestamp());
    let digest = Sha256::new()
        .chain_update(key.der_bytes())
        .chain_update(times.0.to_be_bytes())
        .chain_update(times.1.to_be_bytes())
        .chain_update(common_name)
        .finalize();
    let mut bytes: Vec<u8> = digest.iter().take(16).copied().collect();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from(bytes)
}

fn distinguished_name(subject: &Subject) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    subject.o.iter().for_each(|organization| name.push(DnType::OrganizationName, organization.as_str()));
    subject.ou.iter().for_each(|unit| name.push(DnType::OrganizationalUnitName, unit.as_str()));
    name.push(DnType::CommonName, subject.cn.as_str());
    name
}

fn alternative_names(subject: &Subject) -> Result<Vec<SanType>, PkiError> {
    let dns = subject.dns_sans.iter().map(|name| {
        name.as_str().try_into().map(SanType::DnsName).map_err(|_: rcgen::Error| PkiError::Name(name.clone()))
    });
    let addresses = subject.ip_sans.iter().map(|address| Ok(SanType::IpAddress(*address)));
    dns.chain(addresses).collect()
}

fn purposes(usage: Usage) -> Vec<ExtendedKeyUsagePurpose> {
    match usage {
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    }
}

fn parameters(subject: &Subject, validity: Validity, key: &impl PublicKeyData) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(subject);
    params.subject_alt_names = alternative_names(subject)?;
    (params.not_before, params.not_after) = (validity.not_before, validity.not_after);
    params.serial_number = Some(serial(key, &subject.cn, validity));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = purposes(subject.usage);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn sign(
    ca: &Ca,
    subject: &Subject,
    validity: Validity,
    key: &impl PublicKeyData,
) -> Result<rcgen::Certificate, PkiError> {
    let params = parameters(subject, validity.within(ca.not_after()?), key)?;
    let signed = params.signed_by(key, &ca.issuer()?);
    signed.map_err(|source| PkiError::Sign { subject: subject.cn.clone(), source })
}

/// Makes a certificate with a new key.
///
/// # Errors
/// [`PkiError`] when there is no key, a name cannot be used or the CA cannot be read.
pub fn issue(ca: &Ca, subject: &Subject, validity: Validity, keys: &dyn KeySource) -> Result<Leaf, PkiError> {
    let key = keys.key_pair()?;
    let cert = sign(ca, subject, validity, &key)?;
    Ok(Leaf { cert_pem: cert.pem(), key_pem: Zeroizing::new(key.serialize_pem()) })
}

/// Signs a request (PEM). Only its public key is taken, and only when the request is signed by the matching private key; names, usages
/// and times are the caller's, whatever the request says.
///
/// # Errors
/// [`PkiError::Csr`] when it is no proper request, [`PkiError::CsrKey`] when its key is not ECDSA P-256.
pub fn sign_csr(ca: &Ca, csr_pem: &str, subject: &Subject, validity: Validity) -> Result<String, PkiError> {
    let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(PkiError::Csr)?;
    if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(PkiError::CsrKey);
    }
    sign(ca, subject, validity, &request.public_key).map(|certificate| certificate.pem())
}
