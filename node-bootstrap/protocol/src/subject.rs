//! Whom a client certificate speaks for at the gateway: the subjects that the platform signs and the gateway reads.
//!
//! By a cluster's link CA, nodes: CN node id, O cluster id, OU `node`, and the API server's egress: CN cluster id, O `egress`. Both come
//! from one CA, so neither may pass for the other. By the platform's CA, other gateways: O `gateway`, whatever their CN.

/// Organization of an egress certificate.
const EGRESS: &str = "egress";
/// Organization of a gateway's own certificate.
pub const GATEWAY: &str = "gateway";
/// Organizational unit of a node's certificate.
const NODE: &str = "node";

/// The attributes of an X.509 subject that say who it is (RFC 5280 section 4.1.2.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// CN.
    pub common_name: Option<String>,
    /// O.
    pub organization: Option<String>,
    /// OU.
    pub organizational_unit: Option<String>,
}

/// Who is at the other end of a connection with a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkPeer {
    /// An agent.
    Node {
        /// Its cluster's id.
        cluster: String,
        /// Its node's id.
        node: String,
    },
    /// The egress selector of an API server.
    Egress {
        /// Its cluster's id.
        cluster: String,
    },
    /// Another gateway.
    Gateway {
        /// Its common name, for people.
        name: String,
    },
}

impl LinkPeer {
    /// The subject that is signed.
    pub fn attributes(&self) -> Attributes {
        let (common_name, organization, unit) = match self {
            Self::Node { cluster, node } => (node, cluster.as_str(), Some(NODE)),
            Self::Egress { cluster } => (cluster, EGRESS, None),
            Self::Gateway { name } => (name, GATEWAY, None),
        };
        Attributes {
            common_name: Some(common_name.clone()),
            organization: Some(organization.to_owned()),
            organizational_unit: unit.map(ToOwned::to_owned),
        }
    }

    /// Whom a subject names; none when it is nobody's.
    pub fn of(subject: Attributes) -> Option<Self> {
        let name = subject.common_name.filter(|name| !name.is_empty())?;
        let organization = subject.organization?;
        match subject.organizational_unit.as_deref() {
            Some(NODE) => Some(Self::Node { cluster: organization, node: name }),
            None if organization == EGRESS => Some(Self::Egress { cluster: name }),
            None if organization == GATEWAY => Some(Self::Gateway { name }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_read() {
        let node = LinkPeer::Node { cluster: "cls_1".into(), node: "nod_1".into() };
        let egress = LinkPeer::Egress { cluster: "cls_1".into() };
        let gateway = LinkPeer::Gateway { name: "pilothouse x".into() };
        for peer in [node, egress, gateway] {
            assert_eq!(LinkPeer::of(peer.attributes()), Some(peer));
        }
    }

    #[test]
    fn no_other_subject_names_anybody() {
        let subject = |cn: Option<&str>, o: Option<&str>, ou: Option<&str>| {
            let text = |text: Option<&str>| text.map(ToOwned::to_owned);
            LinkPeer::of(Attributes { common_name: text(cn), organization: text(o), organizational_unit: text(ou) })
        };
        assert_eq!(subject(None, Some("cls_1"), Some("node")), None);
        assert_eq!(subject(Some(""), Some("cls_1"), Some("node")), None);
        assert_eq!(subject(Some("nod_1"), None, Some("node")), None);
        assert_eq!(subject(Some("nod_1"), Some("cls_1"), None), None);
        assert_eq!(subject(Some("nod_1"), Some("cls_1"), Some("admin")), None);
        assert_eq!(subject(Some("cls_1"), Some("egress"), Some("admin")), None);
    }
}
