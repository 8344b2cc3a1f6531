//! An authority for each file kubeconfig: the API server trusts it for as long as its certificate stands in the client-CA bundle, so that
//! taking it out revokes exactly that file, and nothing inside the tenant's cluster can prevent it.
//!
//! Its private key signs one certificate and is dropped; only its public certificate is kept.

use std::collections::BTreeMap;

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use time::OffsetDateTime;

use super::ca::{Ca, CaBundle};
use super::leaf::{Leaf, Validity, issue};
use super::renewal::read;
use super::subject::kubeconfig_user;
use super::{KeySource, PkiError};
use crate::id::KubeconfigId;
use crate::status::AccessRole;

/// The certificates of the authorities of file kubeconfigs, PEM; ordered, so that rendering is deterministic.
pub type KubeconfigAuthorities = BTreeMap<KubeconfigId, String>;

/// What a new file kubeconfig consists of. `Debug` does not show the key.
#[derive(Clone, Debug)]
pub struct KubeconfigCredential {
    /// The certificate of its authority, PEM: public, to be kept and given to the API server.
    pub authority_pem: String,
    /// The client certificate and its key, for the file and for nobody else.
    pub leaf: Leaf,
}

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

/// Makes the authority of a file kubeconfig and the one certificate that it signs; both end at `end`.
///
/// # Errors
/// [`PkiError`] when there is no key.
pub fn issue_kubeconfig_credential(
    (kubeconfig, role): (KubeconfigId, AccessRole),
    (now, end): (OffsetDateTime, OffsetDateTime),
    keys: &dyn KeySource,
) -> Result<KubeconfigCredential, PkiError> {
    let validity = Validity { not_after: end, ..Validity::from_now(now, time::Duration::ZERO) };
    let authority = Ca::constrained(&common_name(kubeconfig), validity, Some(no_servers()), keys)?;
    let leaf = issue(&authority, &kubeconfig_user(kubeconfig, role), validity, keys)?;
    Ok(KubeconfigCredential { authority_pem: authority.cert_pem, leaf })
}

/// Whom a tenant's API server believes: the cluster's own client authority, and those of living file kubeconfigs. PEM.
pub fn client_trust_pem(base: &CaBundle, authorities: &KubeconfigAuthorities) -> String {
    authorities.values().fold(base.trust_pem(), |trust, authority| trust + authority)
}

/// The subject of a certificate, DER: as TLS servers name the authorities they believe (RFC 8446, 4.2.4). None when it is no certificate.
pub fn subject_der(pem: &str) -> Option<Vec<u8>> {
    read(pem, |certificate| certificate.subject().as_raw().to_vec())
}
