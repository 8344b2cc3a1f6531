//! What is kept of a watched pod or node: the few facts that decisions are made of.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ContainerState, Node, Pod};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::render::{CLUSTER_LABEL, COMPONENT_LABEL, CONTROL_PLANE, ETCD};

/// Which part of a control plane a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The datastore.
    Etcd,
    /// API server, controller manager, scheduler.
    ControlPlane,
}

/// One pod of a tenant's control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFact {
    /// Whose.
    pub cluster: ClusterId,
    /// Which part.
    pub component: Component,
    /// Its name, unique in the cluster's namespace.
    pub name: String,
    /// Its address, once it has one and as long as it runs.
    pub address: Option<Ipv4Addr>,
    /// Whether the host's kubelet calls it ready.
    pub ready: bool,
    /// Whether it is on its way out.
    pub leaving: bool,
    /// Why it does not run, in the host's words; empty while nothing is wrong.
    pub complaint: String,
}

impl PodFact {
    /// The facts of a pod; `None` for one that is no tenant's.
    pub fn of(pod: &Pod) -> Option<Self> {
        let label = |name: &str| pod.metadata.labels.as_ref()?.get(name).cloned();
        let cluster = label(CLUSTER_LABEL)?.parse().ok()?;
        let component = match label(COMPONENT_LABEL)?.as_str() {
            ETCD => Component::Etcd,
            CONTROL_PLANE => Component::ControlPlane,
            _ => return None,
        };
        let status = pod.status.as_ref();
        let over = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
        let address = status.and_then(|status| status.pod_ip.as_ref()?.parse().ok());
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let ready = conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
        let leaving = pod.metadata.deletion_timestamp.is_some();
        let name = pod.metadata.name.clone()?;
        Some(Self {
            cluster,
            component,
            name,
            address: address.filter(|_| !over),
            ready,
            leaving,
            complaint: complaint(pod),
        })
    }
}

fn waiting(state: &ContainerState) -> Option<String> {
    let waiting = state.waiting.as_ref()?;
    let reason =
        waiting.reason.clone().filter(|reason| !matches!(reason.as_str(), "ContainerCreating" | "PodInitializing"))?;
    Some(waiting.message.as_ref().map_or_else(|| reason.clone(), |message| format!("{reason}: {message}")))
}

/// The first thing the host complains of: it cannot be scheduled, an image is missing, a container keeps ending.
fn complaint(pod: &Pod) -> String {
    let Some(status) = pod.status.as_ref() else { return String::new() };
    let unschedulable =
        status.conditions.iter().flatten().find(|one| one.type_ == "PodScheduled" && one.status == "False");
    let unschedulable = unschedulable.and_then(|one| one.message.clone());
    let states = status.container_statuses.iter().flatten();
    let container = || {
        let mut complaints = states.filter_map(|one| Some(format!("{}: {}", one.name, waiting(one.state.as_ref()?)?)));
        complaints.next()
    };
    unschedulable.or_else(container).unwrap_or_default()
}

/// One node of a tenant's cluster, as Kubernetes has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFact {
    /// Its name.
    pub name: String,
    /// Whether its condition `Ready` is true; `None` when Kubernetes does not know.
    pub ready: Option<bool>,
    /// The condition's message.
    pub message: String,
    /// The kubelet's version.
    pub kubelet_version: String,
}

impl NodeFact {
    /// The facts of a node.
    pub fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let ready = conditions.and_then(|all| all.iter().find(|one| one.type_ == "Ready"));
        let holds = |status: &str| match status {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        };
        let info = status.and_then(|status| status.node_info.as_ref());
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            ready: ready.map_or(Some(false), |one| holds(&one.status)),
            message: ready.and_then(|one| one.message.clone()).unwrap_or_default(),
            kubelet_version: info.map(|info| info.kubelet_version.clone()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: serde_json::Value) -> Pod {
        let cluster = ClusterId::from_uuid(uuid::Uuid::from_u128(7)).to_string();
        let labels = json!({"pilothouse.dev/cluster": cluster, "pilothouse.dev/component": "etcd"});
        serde_json::from_value(json!({"metadata": {"name": "etcd-0", "labels": labels}, "status": status})).unwrap()
    }

    #[test]
    fn a_pod_says_why_it_does_not_run() {
        let waiting = json!({"reason": "ErrImageNeverPull", "message": "image is not present"});
        let statuses = json!([{"name": "etcd", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": waiting}}]);
        let fact = PodFact::of(&pod(json!({"podIP": "100.64.0.9", "containerStatuses": statuses}))).unwrap();
        assert_eq!(fact.complaint, "etcd: ErrImageNeverPull: image is not present");
        assert_eq!(fact.address, Some(Ipv4Addr::new(100, 64, 0, 9)));
        assert!(!fact.ready && !fact.leaving);
    }

    #[test]
    fn a_finished_pod_has_no_address() {
        let fact = PodFact::of(&pod(json!({"podIP": "100.64.0.9", "phase": "Failed"}))).unwrap();
        assert_eq!((fact.address, fact.complaint.as_str()), (None, ""));
    }

    #[test]
    fn a_stranger_is_no_fact() {
        assert_eq!(PodFact::of(&Pod::default()), None);
    }

    #[test]
    fn an_unknown_node_is_not_unready() {
        let node = |status: &str| -> Node {
            serde_json::from_value(
                json!({"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Ready", "status": status}]}}),
            )
            .unwrap()
        };
        let ready = |status| NodeFact::of(&node(status)).ready;
        assert_eq!((ready("True"), ready("False"), ready("Unknown")), (Some(true), Some(false), None));
        assert_eq!(NodeFact::of(&Node::default()).ready, Some(false));
    }
}
