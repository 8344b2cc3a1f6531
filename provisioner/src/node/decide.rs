//! What to tell people of a node, from what was seen: a pure function. Ignorance changes nothing.

use cloud_providers::{Machine, MachineState};
use migrations::{Node, NodeFacts, NodeReport};
use tenant_controlplane::status::{Class, NodeState, Problem};
use tenant_controlplane::text::printable;
use time::OffsetDateTime;

use crate::host::NodeFact;

/// The code of a problem that the agent itself reported; it stays until the agent takes it back, or is away while the node is ready.
pub const REPORTED_BY_AGENT: &str = "NODE_AGENT";

/// What was seen of a node.
pub struct Sight {
    /// Its machine; `None` for one a user brought.
    pub machine: Option<Machinery>,
    /// Its Kubernetes node: `None` unknown, `Some(None)` not there.
    pub known: Option<Option<NodeFact>>,
}

/// What became of a provider's machine.
pub enum Machinery {
    /// It is there.
    There(Machine),
    /// It had joined, and is gone, and nobody asked for that.
    Lost,
}

fn problem(code: &str, class: Class, detail: String, remediation: &str) -> Problem {
    Problem { code: code.to_owned(), class, detail, remediation: remediation.to_owned() }
}

/// What to write.
pub fn report(node: &Node, sight: &Sight) -> NodeReport {
    let told = node.problem.clone().filter(|problem| problem.code == REPORTED_BY_AGENT);
    let (state, state_message, problem) = match &sight.machine {
        Some(Machinery::Lost) => lost(),
        Some(Machinery::There(Machine { state: MachineState::Failed(why), .. })) => failed(node, why),
        Some(Machinery::There(machine)) if node.machine_fingerprint.is_none() => unjoined(machine),
        _ => joined(node, sight.known.as_ref(), told),
    };
    NodeReport { state, state_message, problem, facts: facts(node, sight), last_seen_at: None }
}

/// Between two orders to the same node: a kubelet registers some seconds after it starts.
const REGISTRATION: time::Duration = time::Duration::minutes(1);

/// Whether kubelet is to be told to register: it was in Kubernetes, is not there any more, and its machine lives. kubelet itself makes its
/// Node object only when it starts.
pub fn must_register(node: &Node, known: Option<&Option<NodeFact>>, now: OffsetDateTime) -> bool {
    let was_in = matches!(node.state, NodeState::Ready | NodeState::NotReady);
    let pending = node.registration.ordered_at.is_some_and(|ordered| now - ordered < REGISTRATION);
    was_in && known == Some(&None) && node.link_connected && !pending
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

/// A machine that enrolled: Kubernetes has the word.
fn joined(node: &Node, known: Option<&Option<NodeFact>>, told: Option<Problem>) -> Verdict {
    let was_in = matches!(node.state, NodeState::Ready | NodeState::NotReady);
    let outside = if was_in { NodeState::NotReady } else { NodeState::Joining };
    match known {
        None if was_in => (node.state, node.state_message.clone(), told.or_else(|| node.problem.clone())),
        None => (NodeState::Joining, joining(&told), told),
        Some(Some(fact)) if fact.ready == Some(true) => {
            (NodeState::Ready, "ready".to_owned(), told.filter(|_| node.link_connected))
        }
        Some(Some(fact)) => (outside, silence(node, fact), told),
        Some(None) if was_in => (outside, "Node object missing; waiting for kubelet to register".to_owned(), told),
        Some(None) => (NodeState::Joining, joining(&told), told),
    }
}

fn joining(told: &Option<Problem>) -> String {
    told.as_ref().map_or_else(|| "starting kubelet on the machine".to_owned(), |problem| problem.detail.clone())
}

fn silence(node: &Node, fact: &NodeFact) -> String {
    match fact.ready {
        None if !node.link_connected => {
            "no heartbeat: check that the machine is powered on and can reach the gateway".to_owned()
        }
        _ if fact.message.is_empty() => "node is not Ready".to_owned(),
        _ => fact.message.clone(),
    }
}

/// The machine's facts with the kubelet's version, when that is news.
fn facts(node: &Node, sight: &Sight) -> Option<NodeFacts> {
    let version = &sight.known.as_ref()?.as_ref()?.kubelet_version;
    let news = !version.is_empty() && *version != node.facts.kubelet_version;
    news.then(|| NodeFacts { kubelet_version: version.clone(), ..node.facts.clone() })
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
            facts: NodeFacts::default(),
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

    fn fact(ready: Option<bool>) -> NodeFact {
        NodeFact { name: "web-1".to_owned(), ready, message: String::new(), kubelet_version: "v1.36.3".to_owned() }
    }

    fn machine(state: MachineState) -> Option<Machinery> {
        Some(Machinery::There(Machine { id: String::new(), name: String::new(), state, address: None }))
    }

    fn state(node: &Node, machine: Option<Machinery>, known: Option<Option<NodeFact>>) -> NodeState {
        report(node, &Sight { machine, known }).state
    }

    #[test]
    fn a_node_becomes_ready_step_by_step() {
        let new = node(NodeState::Pending, false);
        assert_eq!(state(&new, machine(MachineState::Creating), None), NodeState::Creating);
        assert_eq!(state(&new, machine(MachineState::Running), None), NodeState::Joining);
        let enrolled = node(NodeState::Joining, true);
        assert_eq!(state(&enrolled, machine(MachineState::Running), Some(None)), NodeState::Joining);
        assert_eq!(state(&enrolled, None, Some(Some(fact(Some(false))))), NodeState::Joining);
        assert_eq!(state(&enrolled, None, Some(Some(fact(Some(true))))), NodeState::Ready);
    }

    #[test]
    fn a_deleted_node_of_a_live_machine_registers_anew_once_a_minute() {
        let (ready, now) = (node(NodeState::Ready, true), OffsetDateTime::now_utc());
        assert!(must_register(&ready, Some(&None), now));
        assert!(!must_register(&ready, None, now), "unknown is not absent");
        assert!(!must_register(&ready, Some(&Some(fact(None))), now));
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
        assert_eq!(state(&ready, None, Some(Some(fact(None)))), NodeState::NotReady);
        assert_eq!(state(&node(NodeState::NotReady, true), None, None), NodeState::NotReady);
        assert_eq!(state(&ready, Some(Machinery::Lost), None), NodeState::Lost);
    }

    #[test]
    fn the_agents_word_stays_until_it_is_taken_back() {
        let told = problem(REPORTED_BY_AGENT, Class::User, "swap is on".to_owned(), "turn it off");
        let node = Node { problem: Some(told.clone()), ..node(NodeState::Joining, true) };
        let unready = report(&node, &Sight { machine: None, known: Some(None) });
        assert_eq!((unready.problem, unready.state_message.as_str()), (Some(told.clone()), "swap is on"));
        let ready = report(&node, &Sight { machine: None, known: Some(Some(fact(Some(true)))) });
        assert_eq!(ready.problem, Some(told), "it says so with every heartbeat");
        let silent = Node { link_connected: false, ..node };
        assert_eq!(report(&silent, &Sight { machine: None, known: Some(Some(fact(Some(true)))) }).problem, None);
        assert_eq!(ready.facts.unwrap().kubelet_version, "v1.36.3");
    }
}
