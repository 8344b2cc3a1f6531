//! Role bindings that name a user. A tenant may have as many, and as large ones, as it likes: of each page only the keys are kept.

use serde_json::Value;

use super::ObjectKey;

/// The group and version of role bindings.
pub const RBAC: &str = "rbac.authorization.k8s.io/v1";
/// Those for the whole cluster.
pub const CLUSTER_ROLE_BINDING: &str = "ClusterRoleBinding";
/// Those of one namespace.
pub const ROLE_BINDING: &str = "RoleBinding";

/// The key of a binding of this kind, if it binds the user.
pub fn binds(kind: &str, binding: &Value, user: &str) -> Option<ObjectKey> {
    let is_user = |subject: &Value| subject["kind"] == "User" && subject["name"] == user;
    let subjects = binding["subjects"].as_array()?;
    let (namespace, name) = (binding["metadata"]["namespace"].as_str(), binding["metadata"]["name"].as_str()?);
    subjects.iter().any(is_user).then(|| match namespace {
        Some(namespace) => ObjectKey::namespaced(RBAC, kind, namespace, name),
        None => ObjectKey::global(RBAC, kind, name),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_binding_is_the_users_by_kind_and_name() {
        let binding = |kind: &str, name: &str| json!({"metadata": {"namespace": "a", "name": "b"}, "subjects": [{"kind": "Group", "name": "g"}, {"kind": kind, "name": name}]});
        let key = ObjectKey::namespaced(RBAC, ROLE_BINDING, "a", "b");
        assert_eq!(binds(ROLE_BINDING, &binding("User", "u"), "u"), Some(key));
        assert_eq!(binds(ROLE_BINDING, &binding("Group", "u"), "u"), None);
        assert_eq!(binds(ROLE_BINDING, &binding("User", "v"), "u"), None);
        assert_eq!(binds(ROLE_BINDING, &json!({"metadata": {"name": "b"}}), "u"), None, "without subjects");
    }
}
