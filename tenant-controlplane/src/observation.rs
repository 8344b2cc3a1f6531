//! Facts read off Kubernetes objects: the little of a pod, a node or a health check that decisions are made of.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Node, Pod};

use crate::id::ClusterId;
use crate::render::{CLUSTER_LABEL, COMPONENT_LABEL, CONTROL_PLANE, ETCD};
use crate::text::{LONGEST, printable, printable_within};

/// Which part of a control plane a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The datastore.
    Etcd,
    /// API server, controller manager, scheduler.
    ControlPlane,
}

/// The most of a program's last words that is kept, characters.
const LAST_WORDS: usize = 300;

/// Why a pod does not run, quoted from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingReason {
    /// Kubernetes' word for it: `Unschedulable`, `ErrImageNeverPull`, `CrashLoopBackOff`, …
    pub reason: String,
    /// The same for people.
    pub message: String,
}

/// One pod of a tenant's control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInfo {
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
    pub terminating: bool,
    /// Why it does not run; none while nothing is wrong.
    pub waiting_reason: Option<WaitingReason>,
}

impl PodInfo {
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
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let name = pod.metadata.name.clone()?;
        Some(Self {
            cluster,
            component,
            name,
            address: address.filter(|_| !over),
            ready,
            terminating,
            waiting_reason: waiting_reason(pod),
        })
    }
}

/// The first thing the host complains of: it cannot be scheduled, an image is missing, a container keeps ending.
fn waiting_reason(pod: &Pod) -> Option<WaitingReason> {
    let status = pod.status.as_ref()?;
    let unschedulable =
        status.conditions.iter().flatten().find(|one| one.type_ == "PodScheduled" && one.status == "False");
    let unschedulable = unschedulable.and_then(|one| {
        Some(WaitingReason {
            reason: "Unschedulable".to_owned(),
            message: one.message.as_deref().map(printable).filter(|text| !text.is_empty())?,
        })
    });
    let sidecars = status.init_container_statuses.iter().flatten();
    unschedulable.or_else(|| sidecars.chain(status.container_statuses.iter().flatten()).find_map(waiting))
}

/// What a container waits for, unless it is merely being made.
fn waiting(container: &ContainerStatus) -> Option<WaitingReason> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason =
        waiting.reason.clone().filter(|reason| !matches!(reason.as_str(), "ContainerCreating" | "PodInitializing"))?;
    // How it ended says more than that it is started again later.
    let ended = container.last_state.as_ref().and_then(|last| last.terminated.as_ref()).map(last_words);
    let message = ended.or_else(|| waiting.message.clone()).filter(|message| !message.is_empty());
    let message = message.map_or_else(|| reason.clone(), |message| format!("{reason}: {message}"));
    Some(WaitingReason { message: printable(&format!("{}: {message}", container.name)), reason: printable(&reason) })
}

fn last_words(ended: &ContainerStateTerminated) -> String {
    let text = ended.message.as_deref().unwrap_or_default();
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let line = printable_within(line, LAST_WORDS);
    let reason = ended.reason.as_deref().filter(|reason| *reason != "Error");
    let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    let suffix = if line.is_empty() { String::new() } else { format!(": {line}") };
    format!("exited with code {}{reason}{suffix}", ended.exit_code)
}

/// How far an API server has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing answers; why.
    Down(String),
    /// It answers and cannot do its work yet; what is missing.
    Starting(String),
    /// It stores and serves objects; only the roles, priority classes and flow schemas that Kubernetes brings are not all there yet.
    /// Enough for us, and for whoever is `cluster-admin`, which we bring ourselves; others would get wrong refusals.
    Serving,
    /// Everything is there.
    Ready,
}

impl Health {
    /// Whether we can work with it.
    pub const fn serves(&self) -> bool {
        matches!(self, Self::Serving | Self::Ready)
    }
}

/// One node of a tenant's cluster, as Kubernetes has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Whether its condition `Ready` is true; `None` when Kubernetes does not know.
    pub ready: Option<bool>,
    /// The condition's message.
    pub message: String,
    /// The kubelet's version.
    pub kubelet_version: String,
}

/// A machine's root writes what he likes into his node's status: so much of a version is kept, characters.
const LONGEST_VERSION: usize = 64;

/// What a tenant wrote, cut and cleaned.
fn kept(text: Option<&str>, longest: usize) -> String {
    printable_within(text.unwrap_or_default(), longest)
}

impl NodeStatus {
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
            message: kept(ready.and_then(|one| one.message.as_deref()), LONGEST),
            kubelet_version: kept(info.map(|info| info.kubelet_version.as_str()), LONGEST_VERSION),
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
        let info = PodInfo::of(&pod(json!({"podIP": "100.64.0.9", "containerStatuses": statuses}))).unwrap();
        let waiting_reason = info.waiting_reason.unwrap();
        assert_eq!(waiting_reason.reason, "ErrImageNeverPull");
        assert_eq!(waiting_reason.message, "etcd: ErrImageNeverPull: image is not present");
        assert_eq!(info.address, Some(Ipv4Addr::new(100, 64, 0, 9)));
        assert!(!info.ready && !info.terminating);
    }

    #[test]
    fn a_program_that_keeps_ending_is_quoted() {
        let terminated =
            json!({"exitCode": 1, "reason": "Error", "message": "starting\nopen /etc/etcd/ca.crt: no such file\n\n"});
        let waiting = json!({"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container"});
        let status = json!({"name": "etcd", "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": waiting}, "lastState": {"terminated": terminated}});
        let waiting_reason = PodInfo::of(&pod(json!({"containerStatuses": [status]}))).unwrap().waiting_reason.unwrap();
        let message = "etcd: CrashLoopBackOff: exited with code 1: open /etc/etcd/ca.crt: no such file";
        assert_eq!((waiting_reason.reason.as_str(), waiting_reason.message.as_str()), ("CrashLoopBackOff", message));
    }

    #[test]
    fn a_sidecar_that_keeps_ending_is_named_and_not_those_who_wait_for_it() {
        let status = |name: &str, reason: &str| {
            json!({"name": name, "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": reason}}})
        };
        let statuses = json!({"initContainerStatuses": [status("kube-apiserver", "CrashLoopBackOff")],
            "containerStatuses": [status("kube-scheduler", "PodInitializing")]});
        let waiting_reason = PodInfo::of(&pod(statuses)).unwrap().waiting_reason.unwrap();
        assert_eq!(waiting_reason.message, "kube-apiserver: CrashLoopBackOff");
    }

    #[test]
    fn a_pod_without_room_says_what_the_scheduler_says() {
        let condition = json!({"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient memory."});
        let waiting_reason = PodInfo::of(&pod(json!({"conditions": [condition]}))).unwrap().waiting_reason.unwrap();
        assert_eq!(waiting_reason.reason, "Unschedulable");
        assert!(waiting_reason.message.contains("Insufficient memory"));
    }

    #[test]
    fn a_finished_pod_has_no_address() {
        let info = PodInfo::of(&pod(json!({"podIP": "100.64.0.9", "phase": "Failed"}))).unwrap();
        assert_eq!((info.address, info.waiting_reason), (None, None));
    }

    #[test]
    fn a_stranger_is_no_fact() {
        assert_eq!(PodInfo::of(&Pod::default()), None);
    }

    #[test]
    fn a_nodes_own_words_are_cut_and_cleaned() {
        let message = "\u{1b}[2J".to_owned() + &"x".repeat(1_000_000);
        let condition = json!({"type": "Ready", "status": "False", "message": message});
        let status = json!({"conditions": [condition], "nodeInfo": {"kubeletVersion": "v".repeat(100_000), "architecture": "",
            "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "machineID": "",
            "operatingSystem": "", "osImage": "", "systemUUID": ""}});
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "a"}, "status": status})).unwrap();
        let info = NodeStatus::of(&node);
        assert_eq!((info.message.chars().count(), info.kubelet_version.chars().count()), (LONGEST, 64));
        assert!(info.message.starts_with('x'), "nothing that clears a screen");
    }

    #[test]
    fn an_unknown_node_is_not_unready() {
        let node = |status: &str| -> Node {
            serde_json::from_value(
                json!({"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Ready", "status": status}]}}),
            )
            .unwrap()
        };
        let ready = |status| NodeStatus::of(&node(status)).ready;
        assert_eq!((ready("True"), ready("False"), ready("Unknown")), (Some(true), Some(false), None));
        assert_eq!(NodeStatus::of(&Node::default()).ready, Some(false));
    }
}
