//! The report on a node, from what was observed: a pure function. Unknown changes nothing.

use cloud_providers::{Machine, MachineState};
use migrations::{Node, NodeInfo, NodeReport};
use tenant_controlplane::status::{Class, NodeState, Problem};
use tenant_controlplane::text::printable;
use time::OffsetDateTime;

use crate::host::NodeStatus;

/// The code of a problem that the agent itself reported; it stays until the agent takes it back, or is away while the node is ready.
pub const REPORTED_BY_AGENT: &str = "NODE_AGENT";

/// What was observed of a node.
pub struct NodeObservation {
    /// Its machine; `None` for one a user brought.
    pub machine: Option<MachineObservation>,
    /// Its Kubernetes node: `None` unknown, `Some(None)` not there.
    pub node_object: Option<Option<NodeStatus>>,
}

/// The state of a provider's machine.
pub enum MachineObservation {
    /// It exists.
    Present(Machine),
    /// It had joined, no longer exists, and was not deleted by Pilothouse.
    Lost,
}

fn problem(code: &str, class: Class, detail: String, remediation: &str) -> Problem {
    Problem { code: code.to_owned(), class, detail, remediation: remediation.to_owned() }
}

/// What to write.
pub fn report(node: &Node, observation: &NodeObservation) -> NodeReport {
    let reported = node.problem.clone().filter(|problem| problem.code == REPORTED_BY_AGENT);
    let (state, state_message, problem) = match &observation.machine {
        Some(MachineObservation::Lost) => lost(),
        Some(MachineObservation::Present(Machine { state: MachineState::Failed(why), .. })) => failed(node, why),
        Some(MachineObservation::Present(machine)) if node.machine_fingerprint.is_none() => unjoined(machine),
        _ => joined(node, observation.node_object.as_ref(), reported),
    };
    NodeReport { state, state_message, problem, facts: facts(node, observation), last_seen_at: None }
}

/// Between two orders to the same node: a kubelet registers some seconds after it starts.
const REGISTRATION: time::Duration = time::Duration::minutes(1);

/// Whether kubelet must be ordered to register: it was in Kubernetes, is not there any more, and its machine lives. kubelet itself makes its
/// Node object only when it starts.
pub fn must_register(node: &Node, node_object: Option<&Option<NodeStatus>>, now: OffsetDateTime) -> bool {
    let was_in = matches!(node.state, NodeState::Ready | NodeState::NotReady);
    let pending = node.registration.ordered_at.is_some_and(|ordered| now - ordered < REGISTRATION);
    was_in && node_object == Some(&None) && node.link_connected && !pending
}

type Verdict = (NodeState, String, Option<Problem>);

fn lost() -> Verdict {
    let detail = "The machine no longer exists and was not deleted by Pilothouse.".to_owned();
    let remedy = "Delete the node; its pool then creates a new one.";
    (NodeState::Lost, detail.clone(), Some(problem("MACHINE_LOST", Class::Provider, detail, remedy)))
}

fn failed(node: &Node, why: &str) -> Verdict {
    let state = if node.machine_fingerprint.is_some() { NodeState::NotReady } else { NodeState::Creating };
    let detail = printable(&format!("Machine failed: {why}"));
    let remedy = "Delete the node; its pool then creates a new one.";
    (state, detail.clone(), Some(problem("MACHINE_FAILED", Class::Provider, detail, remedy)))
}

fn unjoined(machine: &Machine) -> Verdict {
    match machine.state {
        MachineState::Running => (NodeState::Joining, "machine is running; waiting for it to join".to_owned(), None),
        _ => (NodeState::Creating, "creating machine".to_owned(), None),
    }
}

/// A machine that enrolled: Kubernetes decides.
fn joined(node: &Node, node_object: Option<&Option<NodeStatus>>, reported: Option<Problem>) -> Verdict {
    let was_in = matches!(node.state, NodeState::Ready | NodeState::NotReady);
    let not_in_cluster = if was_in { NodeState::NotReady } else { NodeState::Joining };
    match node_object {
        None if was_in => (node.state, node.state_message.clone(), reported.or_else(|| node.problem.clone())),
        None => (NodeState::Joining, joining_message(&reported), reported),
        Some(Some(info)) if info.ready == Some(true) => {
            (NodeState::Ready, "ready".to_owned(), reported.filter(|_| node.link_connected))
        }
        Some(Some(info)) => (not_in_cluster, not_ready_message(node, info), reported),
        Some(None) if was_in => {
            (not_in_cluster, "Node object missing; waiting for kubelet to register".to_owned(), reported)
        }
        Some(None) => (NodeState::Joining, joining_message(&reported), reported),
    }
}

fn joining_message(reported: &Option<Problem>) -> String {
    reported.as_ref().map_or_else(|| "starting kubelet on the machine".to_owned(), |problem| problem.detail.clone())
}

fn not_ready_message(node: &Node, info: &NodeStatus) -> String {
    match info.ready {
        None if !node.link_connected => {
            "no heartbeat: check that the machine is powered on and can reach the gateway".to_owned()
        }
        _ if info.message.is_empty() => "node is not Ready".to_owned(),
        _ => info.message.clone(),
    }
}

/// The machine's facts with the kubelet's version, when that changed.
fn facts(node: &Node, observation: &NodeObservation) -> Option<NodeInfo> {
    let version = &observation.node_object.as_ref()?.as_ref()?.kubelet_version;
    let changed = !version.is_empty() && *version != node.facts.kubelet_version;
    changed.then(|| NodeInfo { kubelet_version: version.clone(), ..node.facts.clone() })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use tenant_controlplane::id::{ClusterId, NodeId, NodePoolId, OrganizationId};
    use uuid::Uuid;

    /// A node, well and linked.
    pub fn node(state: NodeState, enrolled: bool) -> Node {
        Node {
            id: NodeId::from_uuid(Uuid::nil()),
            cluster: ClusterId::from_uuid(Uuid::nil()),
            pool: NodePoolId::from_uuid(Uuid::nil()),
            organization: OrganizationId::from_uuid(Uuid::nil()),
            name: "web-1".parse().unwrap(),
            state,
            state_message: "as before".to_owned(),
            pod_cidr: "10.244.0.0/24".parse().unwrap(),
            machine_fingerprint: enrolled.then(|| "f".to_owned()),
            facts: NodeInfo::default(),
            link_connected: true,
            last_seen_at: None,
            deletion_requested_at: None,
            forced: false,
            drain_ends_at: None,
            config: migrations::ConfigVersion::default(),
            registration: migrations::Registration::default(),
            removed: false,
            problem: None,
            operation: None,
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn info(ready: Option<bool>) -> NodeStatus {
        NodeStatus { name: "web-1".to_owned(), ready, message: String::new(), kubelet_version: "v1.36.3".to_owned() }
    }

    fn machine(state: MachineState) -> Option<MachineObservation> {
        Some(MachineObservation::Present(Machine { id: String::new(), name: String::new(), state, address: None }))
    }

    fn state(node: &Node, machine: Option<MachineObservation>, node_object: Option<Option<NodeStatus>>) -> NodeState {
        report(node, &NodeObservation { machine, node_object }).state
    }

    #[test]
    fn a_node_becomes_ready_step_by_step() {
        let new = node(NodeState::Pending, false);
        assert_eq!(state(&new, machine(MachineState::Creating), None), NodeState::Creating);
        assert_eq!(state(&new, machine(MachineState::Running), None), NodeState::Joining);
        let enrolled = node(NodeState::Joining, true);
        assert_eq!(state(&enrolled, machine(MachineState::Running), Some(None)), NodeState::Joining);
        assert_eq!(state(&enrolled, None, Some(Some(info(Some(false))))), NodeState::Joining);
        assert_eq!(state(&enrolled, None, Some(Some(info(Some(true))))), NodeState::Ready);
    }

    #[test]
    fn a_deleted_node_of_a_live_machine_registers_anew_once_a_minute() {
        let (ready, now) = (node(NodeState::Ready, true), OffsetDateTime::now_utc());
        assert!(must_register(&ready, Some(&None), now));
        assert!(!must_register(&ready, None, now), "unknown is not absent");
        assert!(!must_register(&ready, Some(&Some(info(None))), now));
        assert!(!must_register(&node(NodeState::Joining, true), Some(&None), now), "kubelet has only begun");
        assert!(!must_register(&Node { link_connected: false, ..ready.clone() }, Some(&None), now), "nobody hears it");
        let ordered =
            |ago| migrations::Registration { number: 1, ordered_at: Some(now - time::Duration::seconds(ago)) };
        assert!(!must_register(&Node { registration: ordered(59), ..ready.clone() }, Some(&None), now));
        assert!(must_register(&Node { registration: ordered(61), ..ready }, Some(&None), now));
    }

    #[test]
    fn unknown_is_neither_ready_nor_lost() {
        let ready = node(NodeState::Ready, true);
        assert_eq!(state(&ready, machine(MachineState::Running), None), NodeState::Ready);
        assert_eq!(state(&ready, None, Some(Some(info(None)))), NodeState::NotReady);
        assert_eq!(state(&node(NodeState::NotReady, true), None, None), NodeState::NotReady);
        assert_eq!(state(&ready, Some(MachineObservation::Lost), None), NodeState::Lost);
    }

    #[test]
    fn the_agents_word_stays_until_it_is_taken_back() {
        let reported = problem(REPORTED_BY_AGENT, Class::User, "swap is on".to_owned(), "turn it off");
        let node = Node { problem: Some(reported.clone()), ..node(NodeState::Joining, true) };
        let unready = report(&node, &NodeObservation { machine: None, node_object: Some(None) });
        assert_eq!((unready.problem, unready.state_message.as_str()), (Some(reported.clone()), "swap is on"));
        let ready = report(&node, &NodeObservation { machine: None, node_object: Some(Some(info(Some(true)))) });
        assert_eq!(ready.problem, Some(reported), "it says so with every heartbeat");
        let silent = Node { link_connected: false, ..node };
        assert_eq!(
            report(&silent, &NodeObservation { machine: None, node_object: Some(Some(info(Some(true)))) }).problem,
            None
        );
        assert_eq!(ready.facts.unwrap().kubelet_version, "v1.36.3");
    }
}
