//! Who may do what in a tenant's cluster: one binding for each role that a kubeconfig may have.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::edit::{EDIT, EDIT_WORKLOADS};
use super::{global, value};
use crate::id::KubeconfigId;
use crate::pki::{KUBELET_API_USER, NODE_PROXIES, PLATFORM_GROUP, kubeconfig_user_name, role_group};
use crate::status::AccessRole;

const API_GROUP: &str = "rbac.authorization.k8s.io";
const CLUSTER_ADMIN: &str = "cluster-admin";

/// Whom a binding names.
enum Who<'a> {
    User(&'a str),
    Group(&'a str),
}

fn binding(name: &str, who: &Who<'_>, role: &str) -> Value {
    let (kind, subject) = match who {
        Who::User(user) => ("User", *user),
        Who::Group(group) => ("Group", *group),
    };
    let subject = Subject {
        api_group: Some(API_GROUP.to_owned()),
        kind: kind.to_owned(),
        name: subject.to_owned(),
        namespace: None,
    };
    let role_ref = RoleRef { api_group: API_GROUP.to_owned(), kind: "ClusterRole".to_owned(), name: role.to_owned() };
    value(&ClusterRoleBinding { metadata: global(name), role_ref, subjects: Some(vec![subject]) })
}

const fn cluster_role(role: AccessRole) -> &'static str {
    match role {
        AccessRole::View => "view",
        AccessRole::Edit => EDIT,
        AccessRole::Admin => CLUSTER_ADMIN,
    }
}

/// A role that Kubernetes' controller manager fills from others, some time after a cluster's start (`aggregationRule` of ClusterRole).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// The role.
    pub name: &'static str,
    /// Those whose rules it must have before it lets anybody do what it promises.
    pub sources: &'static [&'static str],
}

/// What must be filled before a role is worth anything; none for one that is whole from the start.
pub const fn aggregate(role: AccessRole) -> Option<Aggregate> {
    let sources: &'static [&'static str] = match role {
        AccessRole::View => &["system:aggregate-to-view"],
        AccessRole::Edit => &["system:aggregate-to-view", EDIT_WORKLOADS],
        AccessRole::Admin => return None,
    };
    Some(Aggregate { name: cluster_role(role), sources })
}

/// The role `cluster-admin`, word for word as Kubernetes makes it some seconds after an API server begins to serve. For a new cluster it
/// is made ahead of that, so that its first people need not wait; Kubernetes then takes it for its own. It has none of our labels, because
/// we never take it away.
pub fn cluster_admin() -> Value {
    let all = || Some(vec!["*".to_owned()]);
    let resources =
        PolicyRule { api_groups: all(), resources: all(), verbs: vec!["*".to_owned()], ..PolicyRule::default() };
    let urls = PolicyRule { non_resource_urls: all(), verbs: vec!["*".to_owned()], ..PolicyRule::default() };
    let metadata = ObjectMeta { name: Some(CLUSTER_ADMIN.to_owned()), ..ObjectMeta::default() };
    value(&ClusterRole { metadata, rules: Some(vec![resources, urls]), aggregation_rule: None })
}

/// The platform's own rights, the API server's towards kubelets, and the roles' of people. (A binding's role cannot be changed, so one to
/// another role has another name.)
pub(super) fn objects() -> Vec<Value> {
    let platform = binding(PLATFORM_GROUP, &Who::Group(PLATFORM_GROUP), CLUSTER_ADMIN);
    let kubelets = binding("pilothouse:kubelet-api", &Who::User(KUBELET_API_USER), "system:kubelet-api-admin");
    let role = |role: &AccessRole| {
        let group = role_group(*role);
        let name = if *role == AccessRole::Edit { EDIT } else { group.as_str() };
        binding(name, &Who::Group(&group), cluster_role(*role))
    };
    let proxies = binding(NODE_PROXIES, &Who::Group(NODE_PROXIES), "system:node-proxier");
    [platform, kubelets, proxies].into_iter().chain(AccessRole::ALL.iter().map(role)).collect()
}

/// The name of the binding that file kubeconfigs had before each had an authority of its own: what to delete to revoke such a one.
pub fn kubeconfig_binding_name(kubeconfig: KubeconfigId) -> String {
    kubeconfig_user_name(kubeconfig)
}
