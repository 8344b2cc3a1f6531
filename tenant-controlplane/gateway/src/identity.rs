//! Who a client certificate speaks for. The chain is verified elsewhere; here its subject is read and compared. A subject with an attribute
//! twice is refused as ambiguous.

use node_protocol::subject::{Attributes, LinkPeer};
use rustls_pki_types::CertificateDer;
use x509_parser::{parse_x509_certificate, x509::AttributeTypeAndValue};

/// Why a certificate speaks for nobody.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdentityError {
    /// Not an X.509 certificate, or a subject with odd strings or doubled attributes.
    #[error("read the certificate's subject")]
    Unreadable,
    /// Another role or another cluster.
    #[error("the certificate is not for this cluster and use")]
    NotForThis,
}

/// For whom a server configuration accepts certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Nodes of this cluster.
    NodeOf(String),
    /// The egress selector of this cluster's API server.
    EgressOf(String),
    /// Gateways of this installation.
    Gateway,
}

impl Expected {
    /// Whether the certificate's subject is the expected one.
    pub(crate) fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), IdentityError> {
        let fits = match (self, peer(certificate)?) {
            (Self::NodeOf(own), Some(LinkPeer::Node { cluster, .. }))
            | (Self::EgressOf(own), Some(LinkPeer::Egress { cluster })) => *own == cluster,
            (Self::Gateway, Some(LinkPeer::Gateway { .. })) => true,
            _ => false,
        };
        if fits { Ok(()) } else { Err(IdentityError::NotForThis) }
    }
}

/// The node id of a certificate that [`Expected::NodeOf`] accepted.
pub(crate) fn node_id(certificate: &CertificateDer<'_>) -> Option<String> {
    match peer(certificate).ok()?? {
        LinkPeer::Node { node, .. } => Some(node),
        LinkPeer::Egress { .. } | LinkPeer::Gateway { .. } => None,
    }
}

/// Whom a certificate names; none when its subject is neither a node's nor an egress selector's.
fn peer(certificate: &CertificateDer<'_>) -> Result<Option<LinkPeer>, IdentityError> {
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| IdentityError::Unreadable)?;
    let subject = parsed.subject();
    Ok(LinkPeer::of(Attributes {
        common_name: only(subject.iter_common_name())?,
        organization: only(subject.iter_organization())?,
        organizational_unit: only(subject.iter_organizational_unit())?,
    }))
}

fn only<'a>(mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Result<Option<String>, IdentityError> {
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.as_str().map(|text| Some(text.to_owned())).map_err(|_| IdentityError::Unreadable),
        (Some(_), Some(_)) => Err(IdentityError::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(subject: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn node(cluster: &str) -> CertificateDer<'static> {
        certificate(&[
            (DnType::CommonName, "nod_1"),
            (DnType::OrganizationName, cluster),
            (DnType::OrganizationalUnitName, "node"),
        ])
    }

    #[test]
    fn a_node_speaks_for_its_own_cluster_only() {
        assert_eq!(Expected::NodeOf("cls_1".into()).check(&node("cls_1")), Ok(()));
        assert_eq!(Expected::NodeOf("cls_2".into()).check(&node("cls_1")), Err(IdentityError::NotForThis));
        assert_eq!(node_id(&node("cls_1")).as_deref(), Some("nod_1"));
    }

    #[test]
    fn a_node_is_not_an_egress_nor_the_other_way_round() {
        let egress = certificate(&[(DnType::CommonName, "cls_1"), (DnType::OrganizationName, "egress")]);
        assert_eq!(Expected::EgressOf("cls_1".into()).check(&egress), Ok(()));
        assert!(Expected::EgressOf("cls_2".into()).check(&egress).is_err());
        assert!(Expected::NodeOf("cls_1".into()).check(&egress).is_err());
        assert!(Expected::NodeOf("egress".into()).check(&egress).is_err());
        assert!(Expected::EgressOf("nod_1".into()).check(&node("egress")).is_err());
        assert!(Expected::EgressOf("cls_1".into()).check(&node("cls_1")).is_err());
    }

    #[test]
    fn a_gateway_is_neither_and_neither_is_a_gateway() {
        let gateway = certificate(&[(DnType::CommonName, "cls_1"), (DnType::OrganizationName, "gateway")]);
        assert_eq!(Expected::Gateway.check(&gateway), Ok(()));
        assert!(Expected::EgressOf("cls_1".into()).check(&gateway).is_err());
        assert!(Expected::NodeOf("gateway".into()).check(&gateway).is_err());
        assert!(Expected::Gateway.check(&node("gateway")).is_err());
        let egress = certificate(&[(DnType::CommonName, "gateway"), (DnType::OrganizationName, "egress")]);
        assert!(Expected::Gateway.check(&egress).is_err());
    }

    #[test]
    fn rubbish_speaks_for_nobody() {
        let rubbish = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
        assert_eq!(Expected::NodeOf("cls_1".into()).check(&rubbish), Err(IdentityError::Unreadable));
        assert!(Expected::NodeOf("cls_1".into()).check(&certificate(&[])).is_err());
    }
}
