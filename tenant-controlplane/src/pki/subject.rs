//! Who is who: the names that certificates of this system carry, in one place.

use std::net::IpAddr;

use node_protocol::subject::{Attributes, LinkPeer};
use time::{Duration, OffsetDateTime};

use super::cluster::ClusterPki;
use super::leaf::{Leaf, Subject, Usage, Validity, issue};
use super::{KeySource, PkiError};
use crate::id::{ClusterId, KubeconfigId, NodeId};
use crate::name::NodeName;
use crate::status::AccessRole;

/// The group under which the platform itself acts in a tenant cluster once its binding is there.
pub const PLATFORM_GROUP: &str = "pilothouse:platform";

/// What the names of kubeconfigs' users, and of their bindings, begin with.
pub(crate) const KUBECONFIG_PREFIX: &str = "pilothouse:kubeconfig:";

const PLATFORM_USER: &str = "pilothouse:provisioner";
const FIRST_ACCESS: Duration = Duration::minutes(10);
const PLATFORM_ACCESS: Duration = Duration::hours(24);

fn client(cn: impl Into<String>, o: &[&str]) -> Subject {
    Subject { cn: cn.into(), o: o.iter().map(ToString::to_string).collect(), ..Subject::default() }
}

impl From<LinkPeer> for Subject {
    fn from(peer: LinkPeer) -> Self {
        let Attributes { common_name, organization, organizational_unit } = peer.attributes();
        let (cn, o) = (common_name.unwrap_or_default(), organization.into_iter().collect());
        Self { cn, o, ou: organizational_unit, ..Self::default() }
    }
}

/// The group of nodes' kube-proxies; an addon binds it to `system:node-proxier`.
pub(crate) const NODE_PROXIES: &str = "pilothouse:kube-proxies";

/// The user that a node's kubelet is to the API server.
pub fn kubelet_user(node: &str) -> String {
    format!("system:node:{node}")
}

/// The user that a node's kube-proxy is: each its own, so that it can be refused alone.
pub(crate) fn node_proxy_user(node: &str) -> String {
    format!("pilothouse:kube-proxy:{node}")
}

/// A kubelet towards the API server: user `system:node:<name>`, held to its own objects by NodeRestriction.
pub fn kubelet_client(node: &NodeName) -> Subject {
    client(kubelet_user(node.as_str()), &["system:nodes"])
}

/// A kubelet towards the API server that dials it; by the kubelet CA. `addresses` must be the machine's recorded ones.
pub fn kubelet_serving(node: &NodeName, addresses: &[IpAddr]) -> Subject {
    let names = client(format!("system:node:{node}"), &["system:nodes"]);
    Subject { dns_sans: vec![node.to_string()], ip_sans: addresses.to_vec(), usage: Usage::Server, ..names }
}

/// The kube-proxy of a node that joined.
pub fn node_proxy(node: &NodeName) -> Subject {
    client(node_proxy_user(node.as_str()), &[NODE_PROXIES])
}

/// kube-proxy where there is one node; Kubernetes binds this user to `system:node-proxier` by itself.
pub fn kube_proxy() -> Subject {
    client("system:kube-proxy", &[])
}

/// A joined agent at the gateway; by the link CA.
pub fn link_node(cluster: ClusterId, node: NodeId) -> Subject {
    LinkPeer::Node { cluster: cluster.to_string(), node: node.to_string() }.into()
}

/// The name of the user a file kubeconfig acts as: unique to the file, so that audit logs and bindings tell files apart.
pub fn kubeconfig_user_name(kubeconfig: KubeconfigId) -> String {
    format!("{KUBECONFIG_PREFIX}{kubeconfig}")
}

/// The group of everybody who has a role in a cluster; an addon binds it.
pub fn role_group(role: AccessRole) -> String {
    format!("pilothouse:role:{role}")
}

/// The user a file kubeconfig acts as, in the group of its role.
pub(super) fn kubeconfig_user(kubeconfig: KubeconfigId, role: AccessRole) -> Subject {
    client(kubeconfig_user_name(kubeconfig), &[&role_group(role)])
}

/// A person with a short-lived certificate: common name the person, group the role's.
pub fn person(name: &str, role: AccessRole) -> Subject {
    client(name, &[&role_group(role)])
}

/// The first access to a new cluster, to make the binding that [`platform_access`] and everybody else needs, and to one where that binding
/// was taken away. It is the only certificate in `system:masters` that a tenant ever sees: ten minutes long, kept in memory, never written
/// into a kubeconfig.
///
/// # Errors
/// [`PkiError`] when it cannot be made.
pub fn provisioner_access(pki: &ClusterPki, now: OffsetDateTime, keys: &dyn KeySource) -> Result<Leaf, PkiError> {
    let subject = client(PLATFORM_USER, &["system:masters"]);
    issue(&pki.client.current, &subject, Validity::from_now(now, FIRST_ACCESS), keys)
}

/// The platform's later access, for one day, as a member of [`PLATFORM_GROUP`]; a binding of the addons gives it its rights.
///
/// # Errors
/// [`PkiError`] when it cannot be made.
pub fn platform_access(pki: &ClusterPki, now: OffsetDateTime, keys: &dyn KeySource) -> Result<Leaf, PkiError> {
    let subject = client(PLATFORM_USER, &[PLATFORM_GROUP]);
    issue(&pki.client.current, &subject, Validity::from_now(now, PLATFORM_ACCESS), keys)
}
