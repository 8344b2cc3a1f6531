//! A node: what to do about its machine, whether its kubelet must register anew, and the report on it. Unknown changes nothing.

use std::time::Duration;

use time::OffsetDateTime;

use crate::observation::NodeStatus;
use crate::status::{NodeState, Problem, ProblemCode};
use crate::text::printable;

/// What a node's row says.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The word for how it is.
    pub state: NodeState,
    /// The same in a sentence.
    pub message: &'a str,
    /// What is wrong, if something is.
    pub problem: Option<&'a Problem>,
    /// Whether its machine has enrolled.
    pub joined: bool,
    /// Whether its agent is connected to the gateway.
    pub link_connected: bool,
    /// When its agent was last heard of.
    pub last_seen_at: Option<OffsetDateTime>,
    /// When its kubelet was last ordered to register anew.
    pub registration_ordered_at: Option<OffsetDateTime>,
    /// Whether its machine has left for good.
    pub removed: bool,
    /// The version of its kubelet.
    pub kubelet_version: &'a str,
}

/// What was observed of a node.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Its machine; `None` for one a user brought.
    pub machine: Option<Machine>,
    /// Its Kubernetes node: `None` unknown, `Some(None)` not there.
    pub node_object: Option<Option<NodeStatus>>,
}

/// A provider's machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Machine {
    /// On its way.
    Creating,
    /// Powered on.
    Running,
    /// Powered off.
    Stopped,
    /// It will not come up; why.
    Failed(String),
    /// It had joined, no longer exists, and was not deleted by Pilothouse.
    Lost,
}

/// What to do about a provider's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineAction {
    /// It is as it should be, or on its way.
    Keep,
    /// Make it.
    Create,
    /// Power it on.
    Start,
    /// It did not join in time: make it anew.
    Replace,
    /// It had joined and is gone: nobody makes it again, for its node's data went with it.
    ReportLost,
}

/// What to do about the machine that was found, or that there is none. `is_overdue`: it had its time to join.
pub const fn machine_action(found: Option<&Machine>, joined: bool, is_overdue: bool) -> MachineAction {
    match found {
        None | Some(Machine::Lost) if joined => MachineAction::ReportLost,
        None | Some(Machine::Lost) => MachineAction::Create,
        Some(_) if !joined && is_overdue => MachineAction::Replace,
        // Switched off, or ended by itself (a reboot, an out-of-memory kill): either way it is wanted, with its disk.
        Some(Machine::Stopped | Machine::Failed(_)) => MachineAction::Start,
        Some(Machine::Creating | Machine::Running) => MachineAction::Keep,
    }
}

/// Between two orders to the same node: a kubelet registers some seconds after it starts.
const REGISTRATION: time::Duration = time::Duration::minutes(1);

/// Whether kubelet must be ordered to register: it was in Kubernetes, is not there any more, and its machine lives. kubelet itself makes its
/// Node object only when it starts.
pub fn must_register(known: &Known<'_>, node_object: Option<&Option<NodeStatus>>, now: OffsetDateTime) -> bool {
    let pending = known.registration_ordered_at.is_some_and(|ordered| now - ordered < REGISTRATION);
    known.was_in() && node_object == Some(&None) && known.link_connected && !pending
}

/// Whether a user's own machine has left since it was told to, as far as anybody can know: its agent said it has reset the machine, it
/// never joined, was silent for long before, or had its time. A link that has just ended says nothing: the agent ends it when it begins
/// to reset.
pub fn has_left(known: &Known<'_>, since: OffsetDateTime, now: OffsetDateTime, reset_timeout: Duration) -> bool {
    let silent = !known.link_connected && known.last_seen_at.is_none_or(|seen| now - seen > reset_timeout);
    known.removed || !known.joined || silent || now - since > reset_timeout
}

impl Known<'_> {
    /// Whether it was seen in Kubernetes.
    const fn was_in(&self) -> bool {
        matches!(self.state, NodeState::Ready | NodeState::NotReady)
    }

    /// What the agent itself reported; it stays until the agent takes it back, or is away while the node is ready.
    fn reported(&self) -> Option<Problem> {
        self.problem.filter(|problem| problem.code == ProblemCode::NodeAgent).cloned()
    }
}

/// What a node's row says after an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The word for how it is.
    pub state: NodeState,
    /// The same in a sentence.
    pub message: String,
    /// What is wrong, if something is.
    pub problem: Option<Problem>,
    /// The kubelet's version, where it is a new one.
    pub kubelet_version: Option<String>,
}

/// What to write.
pub fn report(known: &Known<'_>, observed: &Observed) -> Report {
    let (state, message, problem) = match &observed.machine {
        Some(Machine::Lost) => lost(),
        Some(Machine::Failed(why)) => failed(known, why),
        Some(machine) if !known.joined => unjoined(machine),
        _ => joined(known, observed.node_object.as_ref()),
    };
    Report { state, message, problem, kubelet_version: kubelet_version(known, observed) }
}

type Verdict = (NodeState, String, Option<Problem>);

fn lost() -> Verdict {
    let detail = "The machine no longer exists and was not deleted by Pilothouse.".to_owned();
    (NodeState::Lost, detail.clone(), Some(Problem::new(ProblemCode::MachineLost, detail)))
}

fn failed(known: &Known<'_>, why: &str) -> Verdict {
    let state = if known.joined { NodeState::NotReady } else { NodeState::Creating };
    let detail = printable(&format!("Machine failed: {why}"));
    (state, detail.clone(), Some(Problem::new(ProblemCode::MachineFailed, detail)))
}

fn unjoined(machine: &Machine) -> Verdict {
    match machine {
        Machine::Running => (NodeState::Joining, "machine is running; waiting for it to join".to_owned(), None),
        _ => (NodeState::Creating, "creating machine".to_owned(), None),
    }
}

/// A machine that enrolled: Kubernetes decides.
fn joined(known: &Known<'_>, node_object: Option<&Option<NodeStatus>>) -> Verdict {
    let reported = known.reported();
    let not_in_cluster = if known.was_in() { NodeState::NotReady } else { NodeState::Joining };
    match node_object {
        None if known.was_in() => (known.state, known.message.to_owned(), reported.or_else(|| known.problem.cloned())),
        Some(Some(info)) if info.ready == Some(true) => {
            (NodeState::Ready, "ready".to_owned(), reported.filter(|_| known.link_connected))
        }
        Some(Some(info)) => (not_in_cluster, not_ready_message(known, info), reported),
        Some(None) if known.was_in() => {
            (not_in_cluster, "Node object missing; waiting for kubelet to register".to_owned(), reported)
        }
        None | Some(None) => (NodeState::Joining, joining_message(reported.as_ref()), reported),
    }
}

fn joining_message(reported: Option<&Problem>) -> String {
    reported.map_or_else(|| "starting kubelet on the machine".to_owned(), |problem| problem.detail.clone())
}

fn not_ready_message(known: &Known<'_>, info: &NodeStatus) -> String {
    match info.ready {
        None if !known.link_connected => {
            "no heartbeat: check that the machine is powered on and can reach the gateway".to_owned()
        }
        _ if info.message.is_empty() => "node is not Ready".to_owned(),
        _ => info.message.clone(),
    }
}

/// The kubelet's version, when that changed.
fn kubelet_version(known: &Known<'_>, observed: &Observed) -> Option<String> {
    let version = &observed.node_object.as_ref()?.as_ref()?.kubelet_version;
    (!version.is_empty() && version != known.kubelet_version).then(|| version.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node, well and linked.
    const fn node(state: NodeState, joined: bool) -> Known<'static> {
        Known {
            state,
            message: "as before",
            problem: None,
            joined,
            link_connected: true,
            last_seen_at: None,
            registration_ordered_at: None,
            removed: false,
            kubelet_version: "",
        }
    }

    fn info(ready: Option<bool>) -> NodeStatus {
        NodeStatus { name: "web-1".to_owned(), ready, message: String::new(), kubelet_version: "v1.36.3".to_owned() }
    }

    fn state(node: &Known<'_>, machine: Option<Machine>, node_object: Option<Option<NodeStatus>>) -> NodeState {
        report(node, &Observed { machine, node_object }).state
    }

    #[test]
    fn a_node_becomes_ready_step_by_step() {
        let new = node(NodeState::Pending, false);
        assert_eq!(state(&new, Some(Machine::Creating), None), NodeState::Creating);
        assert_eq!(state(&new, Some(Machine::Running), None), NodeState::Joining);
        let enrolled = node(NodeState::Joining, true);
        assert_eq!(state(&enrolled, Some(Machine::Running), Some(None)), NodeState::Joining);
        assert_eq!(state(&enrolled, None, Some(Some(info(Some(false))))), NodeState::Joining);
        assert_eq!(state(&enrolled, None, Some(Some(info(Some(true))))), NodeState::Ready);
    }

    #[test]
    fn a_machine_is_made_once_started_again_and_never_made_twice() {
        let action = |found: Option<Machine>, joined, is_overdue| machine_action(found.as_ref(), joined, is_overdue);
        assert_eq!(action(None, false, false), MachineAction::Create);
        assert_eq!(action(None, true, false), MachineAction::ReportLost);
        assert_eq!(action(Some(Machine::Running), false, false), MachineAction::Keep);
        assert_eq!(action(Some(Machine::Running), false, true), MachineAction::Replace);
        assert_eq!(action(Some(Machine::Running), true, true), MachineAction::Keep);
        assert_eq!(action(Some(Machine::Stopped), true, false), MachineAction::Start);
        assert_eq!(action(Some(Machine::Failed("ended".into())), false, false), MachineAction::Start);
    }

    #[test]
    fn a_deleted_node_of_a_live_machine_registers_anew_once_a_minute() {
        let (ready, now) = (node(NodeState::Ready, true), OffsetDateTime::UNIX_EPOCH);
        assert!(must_register(&ready, Some(&None), now));
        assert!(!must_register(&ready, None, now), "unknown is not absent");
        assert!(!must_register(&ready, Some(&Some(info(None))), now));
        assert!(!must_register(&node(NodeState::Joining, true), Some(&None), now), "kubelet has only begun");
        assert!(!must_register(&Known { link_connected: false, ..ready }, Some(&None), now), "nobody hears it");
        let ordered = |ago| Known { registration_ordered_at: Some(now - time::Duration::seconds(ago)), ..ready };
        assert!(!must_register(&ordered(59), Some(&None), now));
        assert!(must_register(&ordered(61), Some(&None), now));
    }

    #[test]
    fn a_machine_has_left_when_it_said_so_or_cannot_say_it() {
        let (now, reset_timeout) = (OffsetDateTime::UNIX_EPOCH, Duration::from_secs(20));
        let seconds = time::Duration::seconds;
        let over = |node: &Known<'_>, waited| has_left(node, now - seconds(waited), now, reset_timeout);
        let seen = |ago| Known { last_seen_at: Some(now - seconds(ago)), ..node(NodeState::Deleting, true) };
        assert!(!over(&seen(1), 5) && over(&seen(1), 21));
        let resetting = Known { link_connected: false, ..seen(1) };
        assert!(!over(&resetting, 5), "a link that has just ended is no reset");
        assert!(over(&Known { removed: true, ..resetting }, 5), "the agent's own word is");
        assert!(over(&resetting, 21), "nobody waits for ever");
        let dead = Known { link_connected: false, ..seen(3600) };
        assert!(over(&dead, 0) && over(&Known { last_seen_at: None, ..dead }, 0));
        assert!(over(&node(NodeState::Deleting, false), 0), "it never joined");
    }

    #[test]
    fn unknown_is_neither_ready_nor_lost() {
        let ready = node(NodeState::Ready, true);
        assert_eq!(state(&ready, Some(Machine::Running), None), NodeState::Ready);
        assert_eq!(state(&ready, None, Some(Some(info(None)))), NodeState::NotReady);
        assert_eq!(state(&node(NodeState::NotReady, true), None, None), NodeState::NotReady);
        assert_eq!(state(&ready, Some(Machine::Lost), None), NodeState::Lost);
    }

    #[test]
    fn the_agents_word_stays_until_it_is_taken_back() {
        let reported = Problem::new(ProblemCode::NodeAgent, "swap is on");
        let node = Known { problem: Some(&reported), ..node(NodeState::Joining, true) };
        let observed = |node_object| Observed { machine: None, node_object: Some(node_object) };
        let unready = report(&node, &observed(None));
        assert_eq!((unready.problem, unready.message.as_str()), (Some(reported.clone()), "swap is on"));
        let ready = report(&node, &observed(Some(info(Some(true)))));
        assert_eq!(ready.problem.as_ref(), Some(&reported), "it says so with every heartbeat");
        let silent = Known { link_connected: false, ..node };
        assert_eq!(report(&silent, &observed(Some(info(Some(true))))).problem, None);
        assert_eq!(ready.kubelet_version.unwrap(), "v1.36.3");
    }
}
