//! The role `edit`: workloads in people's own namespaces, and no way from there to more.
//!
//! Kubernetes' own `edit` is for one namespace. Bound for all of them it is as good as `cluster-admin`: it may mint tokens of every service
//! account, act as any of them, and run pods in `kube-system`, where the controllers' accounts live. So the role has neither of the first
//! two, and an admission policy (`ValidatingAdmissionPolicy`, GA since Kubernetes 1.30) keeps its holders out of the rest. Admission sees no
//! reads: secrets of those namespaces are refused by an authorizer (`component/apiserver.rs`). What stays is what `edit` means: whoever may
//! run pods in a namespace may use every service account and secret of that namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{AggregationRule, ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta};
use serde_json::{Value, json};

use super::{global, value};
use crate::pki::role_group;
use crate::status::AccessRole;

/// The role as it is bound; Kubernetes fills it from its parts.
pub(super) const EDIT: &str = "pilothouse:edit";
/// Our part of it.
pub(super) const EDIT_WORKLOADS: &str = "pilothouse:edit-workloads";
const OWN_PART: &str = "pilothouse.dev/aggregate-to-edit";
/// The policy and its binding.
const POLICY: &str = "edit.pilothouse.dev";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
/// Where Kubernetes and the platform keep their own things.
pub(crate) const PROTECTED: &[&str] = &["kube-node-lease", "kube-public", "kube-system"];

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> PolicyRule {
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
    PolicyRule {
        verbs: texts(verbs),
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(texts(resources)),
        ..PolicyRule::default()
    }
}

/// Kubernetes' `system:aggregate-to-edit` (plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go, 1.36) without `impersonate` and
/// without `serviceaccounts/token`.
fn rules() -> Vec<PolicyRule> {
    let into_pods = ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy"];
    let core = [
        "configmaps",
        "events",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "secrets",
        "serviceaccounts",
        "services",
        "services/proxy",
    ];
    let sets = ["replicasets", "replicasets/scale", "statefulsets", "statefulsets/scale"];
    let apps = [&["daemonsets", "deployments", "deployments/rollback", "deployments/scale"][..], &sets].concat();
    vec![
        rule(READ, "", &[&into_pods[..], &["secrets", "services/proxy"]].concat()),
        rule(WRITE, "", &[&core[..], &into_pods].concat()),
        rule(&["create"], "", &["pods/eviction"]),
        rule(WRITE, "apps", &apps),
        rule(WRITE, "autoscaling", &["horizontalpodautoscalers"]),
        rule(WRITE, "batch", &["cronjobs", "jobs"]),
        rule(&[READ, WRITE].concat(), "coordination.k8s.io", &["leases"]),
        rule(WRITE, "networking.k8s.io", &["ingresses", "networkpolicies"]),
        rule(WRITE, "policy", &["poddisruptionbudgets"]),
        rule(WRITE, "resource.k8s.io", &["resourceclaims", "resourceclaimtemplates"]),
    ]
}

fn own_part() -> Value {
    let metadata = global(EDIT_WORKLOADS);
    let own = [(OWN_PART.to_owned(), "true".to_owned())];
    let labels = metadata.labels.unwrap_or_default().into_iter().chain(own).collect();
    let metadata = ObjectMeta { labels: Some(labels), ..metadata };
    value(&ClusterRole { metadata, rules: Some(rules()), aggregation_rule: None })
}

/// Ours, all that `view` has, and what operators of custom resources add to `edit`; not what Kubernetes itself brings for it.
fn role() -> Value {
    let labeled = |name: &str| {
        let labels = BTreeMap::from([(name.to_owned(), "true".to_owned())]);
        LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
    };
    let foreign = LabelSelectorRequirement {
        key: "kubernetes.io/bootstrapping".to_owned(),
        operator: "DoesNotExist".to_owned(),
        values: None,
    };
    let added = LabelSelector {
        match_expressions: Some(vec![foreign]),
        ..labeled("rbac.authorization.k8s.io/aggregate-to-edit")
    };
    let selectors = vec![labeled(OWN_PART), labeled("rbac.authorization.k8s.io/aggregate-to-view"), added];
    let aggregation_rule = Some(AggregationRule { cluster_role_selectors: Some(selectors) });
    value(&ClusterRole { metadata: global(EDIT), rules: None, aggregation_rule })
}

fn object(kind: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": value(&global(POLICY)),
        "spec": spec,
    })
}

/// What holders of the role are refused, whatever rights they have besides: everything in [`PROTECTED`] (running pods, entering them and
/// minting tokens too), the API server's own service, secrets that Kubernetes would fill with a service account's token, and services with
/// external IPs.
fn policy() -> Value {
    let group = role_group(AccessRole::Edit);
    let protected = PROTECTED.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let refusal = |expression: String, message: &str| json!({"expression": format!("!({expression})"), "message": message, "reason": "Forbidden"});
    let namespaces = refusal(
        format!("has(request.namespace) && request.namespace in [{protected}]"),
        "role edit changes nothing in Kubernetes' own namespaces: use a kubeconfig of role admin",
    );
    let service = refusal(
        // A request that deletes a collection has no name, but the object of each call.
        "has(request.namespace) && request.namespace == 'default' && (has(request.name) && request.name == 'kubernetes' || \
         oldObject != null && oldObject.metadata.name == 'kubernetes')"
            .to_owned(),
        "role edit does not change the API server's own service: use a kubeconfig of role admin",
    );
    let tokens = refusal(
        "request.resource.group == '' && request.resource.resource == 'secrets' && object != null && has(object.type) && \
         object.type == 'kubernetes.io/service-account-token'"
            .to_owned(),
        "role edit makes no tokens of service accounts: use a kubeconfig of role admin",
    );
    // CVE-2020-8554: a service takes every address it names away from all pods and nodes.
    let addresses = refusal(
        "request.resource.group == '' && request.resource.resource == 'services' && object != null && has(object.spec) && \
         has(object.spec.externalIPs) && size(object.spec.externalIPs) > 0"
            .to_owned(),
        "role edit gives services no external IPs, which would take other namespaces' traffic: use a kubeconfig of role admin",
    );
    object(
        "ValidatingAdmissionPolicy",
        json!({
            "failurePolicy": "Fail",
            "matchConditions": [{
                "name": "role-edit",
                "expression": format!("has(request.userInfo.groups) && '{group}' in request.userInfo.groups"),
            }],
            "matchConstraints": {
                "resourceRules": [{
                    "apiGroups": ["*"],
                    "apiVersions": ["*"],
                    "operations": ["*"],
                    "resources": ["*/*"],
                    "scope": "Namespaced",
                }],
            },
            "validations": [namespaces, service, tokens, addresses],
        }),
    )
}

/// The role, its part, and the policy with its binding.
pub(super) fn objects() -> Vec<Value> {
    let binding = json!({"policyName": POLICY, "validationActions": ["Deny"]});
    vec![own_part(), role(), policy(), object("ValidatingAdmissionPolicyBinding", binding)]
}
