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
    assert_eq!((RENDERING, all().len()), (1, 13));
}

#[test]
fn every_object_is_named_and_labelled() {
    for object in all() {
        assert_eq!(object["metadata"]["annotations"][RENDERING_ANNOTATION], "1", "{object}");
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
fn a_kubeconfig_has_a_binding_of_its_own() {
    let id = KubeconfigId::from_uuid(uuid::Uuid::from_u128(5));
    let binding = kubeconfig_binding(id, AccessRole::Edit);
    assert_eq!(binding["metadata"]["name"], kubeconfig_binding_name(id).as_str());
    assert_eq!(binding["subjects"][0]["name"], format!("pilothouse:kubeconfig:{id}"));
    assert_eq!(binding["subjects"][0]["kind"], "User");
    assert_eq!(binding["roleRef"]["name"], "edit");
    assert_eq!(kubeconfig_binding(id, AccessRole::Admin)["roleRef"]["name"], "cluster-admin");
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
