//! An authority for each file kubeconfig: the API server trusts it for as long as its certificate stands in the client-CA bundle, so that
//! taking it out revokes exactly that file, and nothing inside the tenant's cluster can prevent it.
//!
//! It may be made ahead, so that the API server believes it before there is a file. Its private key signs one certificate and is dropped;
//! only its public certificate is kept.

use std::collections::BTreeMap;

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use time::{Duration, OffsetDateTime};

use super::ca::{Ca, CaBundle};
use super::leaf::{Leaf, Validity, issue};
use super::renewal::read;
use super::subject::kubeconfig_user;
use super::{KeySource, PkiError};
use crate::id::KubeconfigId;
use crate::status::AccessRole;

/// The certificates of the authorities of file kubeconfigs, PEM; ordered, so that rendering is deterministic.
pub type KubeconfigAuthorities = BTreeMap<KubeconfigId, String>;

/// How long an authority lasts: a year, which is the longest life of a kubeconfig, and the time that it may wait for one.
const LIFETIME: Duration = Duration::days(365 + 35);

/// The common name of a file kubeconfig's authority.
fn common_name(kubeconfig: KubeconfigId) -> String {
    format!("pilothouse kubeconfig {kubeconfig}")
}

/// No server name and no address: what it signs can only ever be a client. (Constraints on directory names would say more, but Go's
/// verifier refuses every certificate that has them.)
fn no_servers() -> NameConstraints {
    let excluded_subtrees = vec![
        GeneralSubtree::DnsName(String::new()),
        GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
        GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
    ];
    NameConstraints { permitted_subtrees: Vec::new(), excluded_subtrees }
}

/// Makes the authority of a file kubeconfig; it lasts 400 days.
///
/// # Errors
/// [`PkiError`] when there is no key.
pub fn generate_kubeconfig_authority(
    kubeconfig: KubeconfigId,
    now: OffsetDateTime,
    keys: &dyn KeySource,
) -> Result<Ca, PkiError> {
    Ca::constrained(&common_name(kubeconfig), Validity::from_now(now, LIFETIME), Some(no_servers()), keys)
}

/// What a file kubeconfig's certificate says.
#[derive(Clone, Copy, Debug)]
pub struct KubeconfigSubject {
    /// Whose it is.
    pub kubeconfig: KubeconfigId,
    /// What it may do.
    pub role: AccessRole,
    /// When it ends.
    pub not_after: OffsetDateTime,
}

/// Makes the client certificate of a file kubeconfig, with its key: the one certificate that `authority` signs.
///
/// # Errors
/// [`PkiError`] when there is no key.
pub fn issue_kubeconfig_leaf(
    authority: &Ca,
    subject: KubeconfigSubject,
    now: OffsetDateTime,
    keys: &dyn KeySource,
) -> Result<Leaf, PkiError> {
    let validity = Validity { not_after: subject.not_after, ..Validity::from_now(now, Duration::ZERO) };
    issue(authority, &kubeconfig_user(subject.kubeconfig, subject.role), validity, keys)
}

/// Whom a tenant's API server believes: the cluster's own client authority, and those of living file kubeconfigs. PEM.
pub fn client_trust_pem(base: &CaBundle, authorities: &KubeconfigAuthorities) -> String {
    authorities.values().fold(base.trust_pem(), |trust, authority| trust + authority)
}

/// The subject of a certificate, DER: as TLS servers name the authorities they believe (RFC 8446, 4.2.4). None when it is no certificate.
pub fn subject_der(pem: &str) -> Option<Vec<u8>> {
    read(pem, |certificate| certificate.subject().as_raw().to_vec())
}
