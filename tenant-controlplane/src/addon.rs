//! Objects for inside a tenant's cluster: who may do what, where the API server is, and DNS.
//!
//! All but DNS are in place before the first node is; DNS waits as a pending pod until there is one.

mod access;
mod api_endpoint;
mod coredns;
mod edit;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

pub use access::{Aggregate, aggregate, cluster_admin, kubeconfig_binding_name};
pub(crate) use edit::PROTECTED;

use crate::pki::KUBECONFIG_PREFIX;
use crate::render::{MANAGED_BY_LABEL, annotations};
use crate::spec::ClusterSpec;

/// What the addons depend on.
pub struct AddonInput<'a> {
    /// What the cluster should be.
    pub spec: &'a ClusterSpec,
    /// CoreDNS's image; its entry point is `/coredns`.
    pub coredns_image: &'a str,
}

/// Every addon, in the order in which to apply them: the platform's own rights first, so that whatever applies the rest needs no more
/// than those.
pub fn addons(input: &AddonInput<'_>) -> Vec<Value> {
    let access = access::objects();
    let endpoint = api_endpoint::objects();
    access.into_iter().chain(edit::objects()).chain(endpoint).chain(coredns::objects(input)).collect()
}

/// The kinds of which addons are taken away when [`addons`] makes them no longer: API version and kind. One that is no addon any more
/// stays in this list for as long as an older platform may have made it.
pub const PRUNED: &[(&str, &str)] = &[
    ("v1", "ConfigMap"),
    ("v1", "Endpoints"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
];

/// The namespaces that addons live in.
pub const NAMESPACES: &[&str] = &["default", "kube-system"];

/// Whether an object inside the tenant is an addon: what carries our label there otherwise is the binding of a kubeconfig from before
/// each had an authority of its own; it goes with its kubeconfig.
pub fn is_addon(name: &str) -> bool {
    !name.starts_with(KUBECONFIG_PREFIX)
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn labels(more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = [(MANAGED_BY_LABEL, "pilothouse")];
    own.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Metadata of a cluster-wide object.
fn global(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels(&[])),
        annotations: Some(annotations()),
        ..ObjectMeta::default()
    }
}

fn namespaced(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(namespace.to_owned()), ..global(name) }
}

#[cfg(test)]
mod tests;
