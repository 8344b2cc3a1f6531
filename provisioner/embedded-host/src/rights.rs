//! What the host's own parts may do beyond Kubernetes' defaults.

use crate::error::Result;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::{NODE, storage};

const GROUP: &str = "rbac.authorization.k8s.io";
const KUBELET_API: &str = "pilothouse:kubelet-api";
const NODE_READS: &str = "pilothouse:node-reads";

/// Lets the host's API server speak to its kubelet (logs and exec of tenants' pods, for the operator), and the kubelet read what pods are
/// made of at once.
///
/// The node authorizer learns of a pod's claims and secrets a moment after the kubelet does. A kubelet that is refused in that moment comes
/// back after ten seconds. There is one node, on which all pods run, so nothing is given away by it.
pub async fn grant(client: &Client) -> Result<()> {
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let api_server = "kube-apiserver-kubelet-client";
    storage::apply(&bindings, binding(KUBELET_API, "system:kubelet-api-admin", api_server)).await?;
    storage::apply::<ClusterRole>(&Api::all(client.clone()), node_reads()).await?;
    storage::apply(&bindings, binding(NODE_READS, NODE_READS, &format!("system:node:{NODE}"))).await
}

fn node_reads() -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": { "name": NODE_READS },
        "rules": [
            { "apiGroups": [""], "resources": ["secrets", "configmaps"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": [""], "resources": ["persistentvolumeclaims", "persistentvolumes"], "verbs": ["get"] },
        ]
    })
}

fn binding(name: &str, role: &str, user: &str) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": role },
        "subjects": [{ "apiGroup": GROUP, "kind": "User", "name": user }]
    })
}
