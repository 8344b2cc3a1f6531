//! Role bindings that name users. A tenant may have as many, and as large ones, as it likes: of each page only the keys are kept.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::ObjectKey;

/// The group and version of role bindings.
pub const RBAC: &str = "rbac.authorization.k8s.io/v1";
/// Those for the whole cluster.
pub const CLUSTER_ROLE_BINDING: &str = "ClusterRoleBinding";
/// Those of one namespace.
pub const ROLE_BINDING: &str = "RoleBinding";

/// Those of these users whom a binding of this kind binds, each with its key.
pub fn binds(kind: &str, binding: &Value, users: &BTreeSet<String>) -> Vec<(String, ObjectKey)> {
    let (namespace, name) = (binding["metadata"]["namespace"].as_str(), binding["metadata"]["name"].as_str());
    let (Some(subjects), Some(name)) = (binding["subjects"].as_array(), name) else { return Vec::new() };
    let key = match namespace {
        Some(namespace) => ObjectKey::namespaced(RBAC, kind, namespace, name),
        None => ObjectKey::global(RBAC, kind, name),
    };
    let named =
        subjects.iter().filter(|subject| subject["kind"] == "User").filter_map(|subject| subject["name"].as_str());
    // A tenant may name somebody twice.
    let named: BTreeSet<&str> = named.filter(|name| users.contains(*name)).collect();
    named.into_iter().map(|name| (name.to_owned(), key.clone())).collect()
}

/// Adds them to what is known by user.
pub fn note_users(known: &mut BTreeMap<String, Vec<ObjectKey>>, found: impl IntoIterator<Item = (String, ObjectKey)>) {
    found.into_iter().for_each(|(user, key)| known.entry(user).or_default().push(key));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_binding_is_the_users_by_kind_and_name() {
        let binding = |kind: &str, name: &str| json!({"metadata": {"namespace": "a", "name": "b"}, "subjects": [{"kind": "Group", "name": "g"}, {"kind": kind, "name": name}]});
        let key = ObjectKey::namespaced(RBAC, ROLE_BINDING, "a", "b");
        let users = BTreeSet::from(["u".to_owned(), "w".to_owned()]);
        let binds = |binding: &Value| super::binds(ROLE_BINDING, binding, &users);
        assert_eq!(binds(&binding("User", "u")), [("u".to_owned(), key)]);
        assert_eq!(binds(&binding("Group", "u")), []);
        assert_eq!(binds(&binding("User", "v")), []);
        assert_eq!(binds(&json!({"metadata": {"name": "b"}})), [], "without subjects");
        let both = json!({"metadata": {"name": "b"}, "subjects": [
            {"kind": "User", "name": "w"}, {"kind": "User", "name": "u"}, {"kind": "User", "name": "w"}]});
        assert_eq!(binds(&both).iter().map(|(user, _)| &**user).collect::<Vec<_>>(), ["u", "w"]);
    }
}
