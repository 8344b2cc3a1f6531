//! A cluster: what is next, and what to tell people.

mod report;

use time::OffsetDateTime;

use super::{CLUSTER_CREATE, Progress, StepInfo};
use crate::status::{ClusterState, Condition, ConditionStatus};

pub use report::{Observation, Report, addresses, state_after_failure, version_missing};

/// What was seen of a cluster, the last time somebody looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Its namespace is in the host.
    pub namespace: Option<bool>,
    /// etcd is ready.
    pub etcd_ready: Option<bool>,
    /// etcd takes writes: it has not reached its quota.
    pub etcd_writable: Option<bool>,
    /// At least one API server serves.
    pub control_plane_ready: Option<bool>,
    /// Where the gateway dials its API server, `ip:port`.
    pub endpoint: Option<String>,
    /// Our own probe from outside, through the gateway, got an answer with a real kubeconfig.
    pub probe: Option<bool>,
    /// Bindings and addons are applied.
    pub addons: Option<bool>,
    /// How many nodes are ready, of how many.
    pub nodes: Option<NodeCount>,
    /// When the first of its certificates ends.
    pub certificates_end: Option<OffsetDateTime>,
    /// What went wrong last, for people; never a secret.
    pub last_error: Option<String>,
}

/// Nodes of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCount {
    /// Ready ones.
    pub ready: u32,
    /// All that should be there.
    pub total: u32,
}

impl Observed {
    /// Whether a step of `cluster.create` is done, in the order of [`CLUSTER_CREATE`]. An answer from outside proves what lies below it.
    fn created(&self) -> [bool; CLUSTER_CREATE.len()] {
        let reached = self.probe == Some(true);
        let control_plane = reached || self.control_plane_ready == Some(true);
        let datastore = control_plane || self.etcd_ready == Some(true);
        [true, datastore, control_plane, reached, reached && self.addons == Some(true)]
    }
}

/// The steps of `cluster.create` as they stand: done ones, then the running one, then the waiting ones.
pub fn create_progress(observed: &Observed) -> [(StepInfo, Progress); CLUSTER_CREATE.len()] {
    let done = observed.created();
    let first_open = done.iter().position(|done| !done).unwrap_or(done.len());
    let progress = |place: usize| match place.cmp(&first_open) {
        std::cmp::Ordering::Less => Progress::Done,
        std::cmp::Ordering::Equal => Progress::Running,
        std::cmp::Ordering::Greater => Progress::Waiting,
    };
    std::array::from_fn(|place| (CLUSTER_CREATE[place], progress(place)))
}

/// The step that is next; none when the cluster is all it should be.
pub fn next_step(observed: &Observed) -> Option<StepInfo> {
    create_progress(observed).into_iter().find(|(_, progress)| *progress == Progress::Running).map(|(step, _)| step)
}

/// What a summary is made of.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// What was seen.
    pub observed: &'a Observed,
    /// The generation it was observed for.
    pub generation: i64,
    /// Somebody asked for its removal.
    pub deleting: bool,
    /// Its state so far.
    pub state: ClusterState,
    /// Its conditions so far; they give unchanged ones their time.
    pub conditions: &'a [Condition],
    /// Now.
    pub now: OffsetDateTime,
}

/// What to tell people: a state in one word, and each fact with its reason.
pub fn summarize(situation: &Situation<'_>) -> (ClusterState, Vec<Condition>) {
    let mut facts = facts(situation.observed);
    facts.push(certificates(situation.observed.certificates_end, situation.now));
    (state(situation), facts.into_iter().map(|fact| condition(situation, fact)).collect())
}

fn state(situation: &Situation<'_>) -> ClusterState {
    let was_running = matches!(situation.state, ClusterState::Running | ClusterState::Degraded);
    match situation.observed.probe {
        _ if situation.deleting => ClusterState::Deleting,
        Some(true) => ClusterState::Running,
        Some(false) if was_running => ClusterState::Degraded,
        None if was_running => situation.state,
        Some(false) | None => ClusterState::Provisioning,
    }
}

/// A fact with what to say when it holds, when it does not, and when nobody can tell.
struct Fact {
    kind: &'static str,
    holds: Option<bool>,
    reasons: [&'static str; 2],
    message: String,
}

fn facts(observed: &Observed) -> Vec<Fact> {
    let words = |holds: Option<bool>, words: [&str; 2]| match holds {
        Some(true) => words[0].to_owned(),
        Some(false) => words[1].to_owned(),
        None => "not observed yet".to_owned(),
    };
    let fact = |kind, holds, reasons, text| Fact { kind, holds, reasons, message: words(holds, text) };
    let endpoint = observed.endpoint.as_ref().and(observed.probe);
    let mut facts = vec![
        ready(observed),
        fact("DatastoreReady", observed.etcd_ready, ["Ready", "Starting"], ["etcd is ready", "etcd is not ready"]),
        fact(
            "DatastoreWritable",
            observed.etcd_writable,
            ["HasSpace", "Full"],
            ["etcd accepts writes", "etcd is full: writes are rejected"],
        ),
        fact(
            "ControlPlaneAvailable",
            observed.control_plane_ready,
            ["Available", "Starting"],
            ["the control plane is ready", "no control-plane pod is ready"],
        ),
        fact(
            "EndpointReachable",
            endpoint,
            ["Reachable", "Unreachable"],
            ["the API server is reachable through the gateway", "the API server is not reachable through the gateway"],
        ),
        fact(
            "AddonsHealthy",
            observed.addons,
            ["Applied", "Pending"],
            ["RBAC and add-ons are installed", "RBAC and add-ons are not fully installed"],
        ),
    ];
    facts.extend(observed.nodes.map(nodes));
    facts
}

fn ready(observed: &Observed) -> Fact {
    let message = match (next_step(observed), &observed.last_error) {
        (_, Some(last_error)) => last_error.clone(),
        (Some(step), None) => format!("next: {}", step.title),
        (None, None) => "the cluster is ready".to_owned(),
    };
    Fact { kind: "Ready", holds: observed.probe, reasons: ["Ready", "NotReady"], message }
}

fn nodes(count: NodeCount) -> Fact {
    let message = match count {
        NodeCount { total: 0, .. } => "no nodes have joined: workloads cannot be scheduled".to_owned(),
        NodeCount { ready, total } => format!("{ready} of {total} nodes are ready"),
    };
    let holds = Some(count.ready == count.total);
    Fact { kind: "NodesHealthy", holds, reasons: ["Ready", "NotReady"], message }
}

/// They are renewed by themselves; people see when the first would end if they were not.
fn certificates(end: Option<OffsetDateTime>, now: OffsetDateTime) -> Fact {
    let message = match end {
        Some(end) if end > now => format!("earliest certificate expiry is {}; renewed automatically", end.date()),
        Some(end) => format!("a certificate expired on {}", end.date()),
        None => "not observed yet".to_owned(),
    };
    Fact { kind: "CertificatesValid", holds: end.map(|end| end > now), reasons: ["Valid", "Expired"], message }
}

fn condition(situation: &Situation<'_>, fact: Fact) -> Condition {
    let status = ConditionStatus::from(fact.holds);
    let before = situation.conditions.iter().find(|known| known.kind == fact.kind && known.status == status);
    let reason = match status {
        ConditionStatus::True => fact.reasons[0],
        ConditionStatus::False => fact.reasons[1],
        ConditionStatus::Unknown => "NotObserved",
    };
    Condition {
        kind: fact.kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: fact.message,
        observed_generation: situation.generation,
        last_transition_time: before.map_or(situation.now, |known| known.last_transition_time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);

    fn running() -> Observed {
        Observed {
            namespace: Some(true),
            etcd_ready: Some(true),
            etcd_writable: Some(true),
            control_plane_ready: Some(true),
            endpoint: Some("192.0.2.1:6443".to_owned()),
            probe: Some(true),
            addons: Some(true),
            nodes: Some(NodeCount { ready: 1, total: 1 }),
            certificates_end: Some(NOW + Duration::days(365)),
            last_error: None,
        }
    }

    fn situation(observed: &Observed, state: ClusterState) -> Situation<'_> {
        Situation { observed, generation: 1, deleting: false, state, conditions: &[], now: NOW }
    }

    fn state_after(observed: &Observed, before: ClusterState) -> ClusterState {
        summarize(&situation(observed, before)).0
    }

    #[test]
    fn steps_follow_each_other() {
        let mut observed = Observed::default();
        let key = |observed: &Observed| next_step(observed).map(|step| step.key);
        assert_eq!(key(&observed), Some("datastore"));
        observed.etcd_ready = Some(true);
        assert_eq!(key(&observed), Some("control_plane"));
        observed.control_plane_ready = Some(true);
        assert_eq!(key(&observed), Some("endpoint"));
        observed.probe = Some(true);
        assert_eq!(key(&observed), Some("addons"));
        observed.addons = Some(true);
        assert_eq!(key(&observed), None);
        assert!(create_progress(&observed).iter().all(|(_, progress)| *progress == Progress::Done));
    }

    #[test]
    fn an_answer_proves_what_lies_below_it() {
        let observed = Observed { etcd_ready: None, control_plane_ready: None, ..running() };
        assert_eq!(next_step(&observed), None);
    }

    #[test]
    fn unknown_changes_nothing() {
        let unknown = Observed::default();
        assert_eq!(state_after(&unknown, ClusterState::Running), ClusterState::Running);
        assert_eq!(state_after(&unknown, ClusterState::Degraded), ClusterState::Degraded);
        assert_eq!(state_after(&unknown, ClusterState::Pending), ClusterState::Provisioning);
        let (_, conditions) = summarize(&situation(&unknown, ClusterState::Running));
        assert!(conditions.iter().all(|condition| condition.status == ConditionStatus::Unknown));
    }

    #[test]
    fn states() {
        let down = Observed { probe: Some(false), ..running() };
        assert_eq!(state_after(&running(), ClusterState::Provisioning), ClusterState::Running);
        assert_eq!(state_after(&down, ClusterState::Provisioning), ClusterState::Provisioning);
        assert_eq!(state_after(&down, ClusterState::Running), ClusterState::Degraded);
        assert_eq!(state_after(&running(), ClusterState::Degraded), ClusterState::Running);
        let deleting = Situation { deleting: true, ..situation(&down, ClusterState::Running) };
        assert_eq!(summarize(&deleting).0, ClusterState::Deleting);
    }

    #[test]
    fn conditions_keep_their_time_until_they_change() {
        let observed = running();
        let (_, first) = summarize(&situation(&observed, ClusterState::Running));
        let later = NOW + Duration::minutes(5);
        let down = Observed { probe: Some(false), last_error: Some("the gateway refused".to_owned()), ..running() };
        let again = Situation { conditions: &first, now: later, ..situation(&down, ClusterState::Running) };
        let (_, second) = summarize(&again);
        let time = |kind: &str| second.iter().find(|known| known.kind == kind).map(|known| known.last_transition_time);
        assert_eq!((time("Ready"), time("DatastoreReady")), (Some(later), Some(NOW)));
        assert_eq!(second[0].message, "the gateway refused");
    }

    #[test]
    fn a_cluster_without_nodes_says_so() {
        let observed = Observed { nodes: Some(NodeCount::default()), ..running() };
        let (_, conditions) = summarize(&situation(&observed, ClusterState::Running));
        let nodes = conditions.iter().find(|condition| condition.kind == "NodesHealthy").unwrap();
        assert!(nodes.message.contains("no nodes have joined"));
    }

    #[test]
    fn certificates_say_when_the_first_ends() {
        let seen = |observed: &Observed, now| {
            let (_, conditions) = summarize(&Situation { now, ..situation(observed, ClusterState::Running) });
            let found = conditions.into_iter().find(|condition| condition.kind == "CertificatesValid").unwrap();
            (found.status, found.message)
        };
        let (status, message) = seen(&running(), NOW);
        assert_eq!(status, ConditionStatus::True);
        assert_eq!(message, "earliest certificate expiry is 2027-11-20; renewed automatically");
        assert_eq!(seen(&running(), NOW + Duration::days(366)).0, ConditionStatus::False);
        let unknown = Observed { certificates_end: None, ..running() };
        assert_eq!(seen(&unknown, NOW).0, ConditionStatus::Unknown);
    }

    #[test]
    fn kinds_have_their_steps() {
        assert_eq!(crate::plan::steps("cluster.delete").len(), 4);
        assert!(crate::plan::steps("kubeconfig.revoke").is_empty());
    }
}
