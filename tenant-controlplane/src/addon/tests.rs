//! Golden files and laws of what a cluster has inside.

use super::*;
use crate::id::KubeconfigId;
use crate::render::{RENDERING, RENDERING_ANNOTATION};
use crate::status::AccessRole;
use crate::version::KubernetesVersion;

fn all() -> Vec<Value> {
    let spec = ClusterSpec::new(KubernetesVersion::default());
    addons(&AddonInput { spec: &spec, coredns_image: "registry.pilothouse.internal/coredns:v1.15.0" })
}

#[test]
fn golden() {
    insta::with_settings!({sort_maps => true, snapshot_path => "../snapshots"}, {
        insta::assert_yaml_snapshot!("addons", all());
    });
}

#[test]
fn whoever_adds_an_addon_raises_the_number_of_the_rendering() {
    assert_eq!((RENDERING, all().len()), (2, 18));
}

#[test]
fn every_object_is_named_and_labelled() {
    for object in all() {
        assert_eq!(object["metadata"]["annotations"][RENDERING_ANNOTATION], "2", "{object}");
        assert!(object["apiVersion"].is_string() && object["kind"].is_string(), "{object}");
        assert!(object["metadata"]["name"].is_string(), "{object}");
        assert_eq!(object["metadata"]["labels"][MANAGED_BY_LABEL], "pilothouse", "{object}");
    }
}

#[test]
fn the_platforms_rights_come_first() {
    let first = &all()[0];
    assert_eq!(first["kind"], "ClusterRoleBinding");
    assert_eq!(first["subjects"][0]["name"], "pilothouse:platform");
}

#[test]
fn each_role_has_a_binding_for_its_group() {
    let role_of = |role| {
        let group = crate::pki::role_group(role);
        let all = all();
        let found = all
            .iter()
            .find(|object| object["kind"] == "ClusterRoleBinding" && object["subjects"][0]["name"] == group.as_str());
        found.unwrap()["roleRef"]["name"].clone()
    };
    let roles = [AccessRole::View, AccessRole::Edit, AccessRole::Admin].map(role_of);
    assert_eq!(roles, ["view", "pilothouse:edit", "cluster-admin"]);
}

/// Every verb on every resource of the roles that we bring.
fn rights() -> Vec<(String, String)> {
    let texts = |list: &Value| {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let roles = all().into_iter().filter(|object| object["kind"] == "ClusterRole" && object["rules"].is_array());
    let rules = roles.filter(|role| role["metadata"]["name"] == "pilothouse:edit-workloads");
    let rules: Vec<_> = rules.flat_map(|role| role["rules"].as_array().unwrap().clone()).collect();
    let pairs = rules.iter().flat_map(|rule| {
        let (verbs, resources) = (texts(&rule["verbs"]), texts(&rule["resources"]));
        verbs
            .into_iter()
            .flat_map(move |verb| resources.clone().into_iter().map(move |resource| (verb.clone(), resource)))
    });
    pairs.collect()
}

#[test]
fn edit_gives_itself_no_more() {
    let rights = rights();
    assert!(rights.contains(&("create".to_owned(), "pods".to_owned())));
    for (verb, resource) in &rights {
        assert!(
            !["*", "impersonate", "escalate", "bind", "approve", "sign"].contains(&verb.as_str()),
            "{verb} {resource}"
        );
        assert!(!resource.contains('*') && resource != "serviceaccounts/token", "{verb} {resource}");
        let above =
            ["role", "webhook", "node", "namespace", "certificate", "customresource", "endpoint", "persistentvolumes"];
        assert!(!above.iter().any(|word| resource.starts_with(word)), "{verb} {resource}");
    }
    let roles = all();
    let whole =
        roles.iter().find(|object| object["metadata"]["name"] == "pilothouse:edit" && object["kind"] == "ClusterRole");
    let selectors = whole.unwrap()["aggregationRule"]["clusterRoleSelectors"].to_string();
    assert!(selectors.contains(r#"{"key":"kubernetes.io/bootstrapping","operator":"DoesNotExist"}"#), "{selectors}");
}

#[test]
fn edit_is_kept_out_of_kubernetes_own_namespaces() {
    let all = all();
    let of_kind = |kind: &str| all.iter().find(|object| object["kind"] == kind).unwrap();
    let (policy, binding) = (of_kind("ValidatingAdmissionPolicy"), of_kind("ValidatingAdmissionPolicyBinding"));
    assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    assert_eq!(
        (&policy["spec"]["failurePolicy"], &binding["spec"]["validationActions"][0]),
        (&"Fail".into(), &"Deny".into())
    );
    let text = policy.to_string();
    for word in ["kube-system", "kube-public", "kube-node-lease", "pilothouse:role:edit", "service-account-token"] {
        assert!(text.contains(word), "{word} missing of {text}");
    }
}

#[test]
fn the_role_that_kubernetes_brings_too_is_nothing_that_we_take_away() {
    let role = cluster_admin();
    assert_eq!(role["metadata"], serde_json::json!({"name": "cluster-admin"}));
    assert_eq!(role["rules"][0], serde_json::json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}));
    assert_eq!(role["rules"][1], serde_json::json!({"nonResourceURLs": ["*"], "verbs": ["*"]}));
}

#[test]
fn every_addon_is_pruned_when_it_is_none_any_more_and_no_kubeconfig_is() {
    for object in all() {
        let kind = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        assert!(PRUNED.contains(&kind), "{kind:?}");
        assert!(is_addon(object["metadata"]["name"].as_str().unwrap()), "{object}");
    }
    let id = KubeconfigId::from_uuid(uuid::Uuid::from_u128(5));
    assert!(!is_addon(&kubeconfig_binding_name(id)));
}
