//! When the control plane's own certificates must be made anew: a pure decision over what is stored and what should stand in it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::PkiError;
use super::ca::{Ca, CaKind};
use super::cluster::{ClusterPki, LeafKind, PkiContext};
use super::leaf::Subject;

/// Why a certificate must be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is none of that kind, or nobody can read it.
    Missing,
    /// Two thirds of its life are over.
    Age,
    /// It should carry other names or addresses.
    Names,
    /// Another CA than the current one vouches for it.
    Issuer,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "it is missing",
            Self::Age => "two thirds of its lifetime have passed",
            Self::Names => "its names changed",
            Self::Issuer => "its CA changed",
        })
    }
}

impl ClusterPki {
    /// The first certificate that must be made anew, and why; none while all are good. One whose CA ends no later than itself is left
    /// alone whatever its age: another would live no longer.
    ///
    /// # Errors
    /// [`PkiError::Times`] when a CA's own certificate cannot be read.
    pub fn due(&self, context: &PkiContext<'_>, now: OffsetDateTime) -> Result<Option<(LeafKind, Cause)>, PkiError> {
        for kind in LeafKind::ALL {
            let ca = &self.ca(kind.signed_by()).current;
            if let Some(cause) = cause(self.cert(kind), ca, &context.subject(kind), now)? {
                return Ok(Some((kind, cause)));
            }
        }
        Ok(None)
    }

    /// When the first of all certificates ends, authorities included; none when one cannot be read.
    pub fn earliest_end(&self) -> Option<OffsetDateTime> {
        let authorities = CaKind::ALL.into_iter().map(|kind| self.ca(kind).current.cert_pem.as_str());
        let leaves = LeafKind::ALL.into_iter().map(|kind| self.cert(kind));
        let ends: Option<Vec<_>> = authorities.chain(leaves).map(end).collect();
        ends?.into_iter().min()
    }
}

/// Reads a certificate; none when it is not one.
pub(super) fn read<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
    Some(look(&certificate))
}

/// When a certificate ends; none when the text is not one.
pub fn end(pem: &str) -> Option<OffsetDateTime> {
    read(pem, |certificate| certificate.validity().not_after.to_datetime())
}

fn cause(pem: &str, ca: &Ca, subject: &Subject, now: OffsetDateTime) -> Result<Option<Cause>, PkiError> {
    let limit = ca.not_after()?;
    let found = read(pem, |certificate| {
        let (begin, end) =
            (certificate.validity().not_before.to_datetime(), certificate.validity().not_after.to_datetime());
        let vouched = read(&ca.cert_pem, |ca| certificate.verify_signature(Some(ca.public_key())).is_ok());
        match () {
            () if vouched != Some(true) => Some(Cause::Issuer),
            () if !carries(certificate, subject) => Some(Cause::Names),
            () if now - begin > (end - begin) * 2 / 3 && end < limit => Some(Cause::Age),
            () => None,
        }
    });
    Ok(found.unwrap_or(Some(Cause::Missing)))
}

/// Whether a certificate has exactly the names and addresses it should have.
fn carries(certificate: &X509Certificate<'_>, subject: &Subject) -> bool {
    let Ok(extension) = certificate.subject_alternative_name() else { return false };
    let names = extension.iter().flat_map(|extension| &extension.value.general_names);
    let (mut dns, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for name in names {
        match name {
            GeneralName::DNSName(name) => _ = dns.insert((*name).to_owned()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => return false,
        }
    }
    dns == subject.dns_sans.iter().cloned().collect() && addresses == subject.ip_sans.iter().copied().collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
