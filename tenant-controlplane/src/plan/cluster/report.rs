//! One observation of a cluster, and the report drawn from it: what it waits for, what is wrong, and what its row says then.

use super::{Observed, Situation, summarize};
use crate::diagnosis::BlockingReason;
use crate::observation::{Component, Health, PodInfo};
use crate::spec::API_PORT;
use crate::status::{ClusterState, Condition, Problem, ProblemCode};
use crate::version::KubernetesVersion;

/// What one observation found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The facts.
    pub observed: Observed,
    /// Whether the watch of pods knows anything yet.
    pub pods_known: bool,
    /// How far the API server is that has come furthest.
    pub health: Option<Health>,
    /// How many addresses there were to ask.
    pub candidates: usize,
    /// Why it does not come up, quoted from the host.
    pub blocking_reason: Option<BlockingReason>,
    /// What went wrong inside the tenant.
    pub problem: Option<Problem>,
}

/// The addresses at which API servers may answer, the one the gateway uses now first.
pub fn addresses(pods: &[PodInfo], current: Option<&str>) -> Vec<String> {
    let mut addresses: Vec<String> = pods.iter().filter_map(address).collect();
    addresses.sort_by_key(|address| Some(address.as_str()) != current);
    addresses
}

fn address(pod: &PodInfo) -> Option<String> {
    pod.address
        .filter(|_| pod.component == Component::ControlPlane && !pod.terminating)
        .map(|ip| format!("{ip}:{API_PORT}"))
}

/// Whether more than half of etcd's members are ready.
fn has_quorum(pods: &[PodInfo]) -> bool {
    let members = || pods.iter().filter(|pod| pod.component == Component::Etcd);
    members().filter(|pod| pod.ready).count() * 2 > members().count()
}

impl Observation {
    /// What is seen from inside the host: the pods, and how far the API server is that has come furthest, with its address when it serves.
    /// `current` is the address the gateway uses now; it is kept while its pod lives and nothing better answers.
    pub fn inside(
        pods: Option<&[PodInfo]>,
        current: Option<&str>,
        health: Option<Health>,
        serving: Option<String>,
    ) -> Self {
        let pod_list = pods.unwrap_or_default();
        let addresses = addresses(pod_list, current);
        let kept = current.filter(|current| pods.is_none() || addresses.iter().any(|address| address == current));
        let observed = Observed {
            namespace: Some(true),
            etcd_ready: if serving.is_some() { Some(true) } else { pods.map(has_quorum) },
            control_plane_ready: health.as_ref().map(Health::serves).or(pods.map(|_| false)),
            endpoint: serving.or_else(|| kept.map(ToOwned::to_owned)),
            probe: if pods.is_some() { Some(false) } else { None },
            ..Observed::default()
        };
        let blocking_reason = BlockingReason::of(pod_list);
        let (pods_known, candidates) = (pods.is_some(), addresses.len());
        Self { observed, pods_known, health, candidates, blocking_reason, problem: None }
    }

    /// Whether nothing is left to do: it answers from outside and its add-ons are installed.
    pub fn is_settled(&self) -> bool {
        self.observed.probe == Some(true) && self.observed.addons == Some(true)
    }

    /// Whether there is an address to ask.
    pub const fn has_candidate(&self) -> bool {
        self.candidates > 0
    }

    /// Whether something answers at that address, ready or not.
    pub const fn answers(&self) -> bool {
        matches!(self.health, Some(Health::Starting(_)))
    }

    /// What is waited for.
    pub fn reason(&self) -> String {
        match (&self.blocking_reason, &self.health) {
            (Some(blocking_reason), _) => blocking_reason.text.clone(),
            _ if !self.pods_known => "the list of the host's pods".to_owned(),
            (_, None) => "a control plane pod with an IP address".to_owned(),
            (_, Some(Health::Down(why) | Health::Starting(why))) => format!("the API server: {why}"),
            (_, Some(Health::Serving | Health::Ready)) => {
                self.observed.last_error.clone().unwrap_or_else(|| "the endpoint through the gateway".to_owned())
            }
        }
    }

    /// The message of a step that has been waiting for a while.
    pub fn step_message(&self) -> String {
        let blocking = self.blocking_reason.as_ref().map(|found| found.problem().detail);
        blocking.unwrap_or_else(|| format!("waiting for {}", self.reason()))
    }

    /// What to write: `is_late` when what it waits for has lasted long enough to be a problem, `missing` the version that cannot be had.
    pub fn report(&self, situation: &Situation<'_>, is_late: bool, missing: Option<KubernetesVersion>) -> Report {
        let (state, conditions) = summarize(situation);
        let problem = self.problem(state, is_late).or_else(|| missing.map(version_missing));
        let ready = conditions.iter().find(|condition| condition.kind == "Ready");
        let ready = || ready.map(|condition| condition.message.clone()).unwrap_or_default();
        let message = problem.as_ref().map_or_else(ready, |problem| problem.detail.clone());
        Report { state, conditions, problem, message }
    }

    /// The problem to report: that nothing can be written, what blocks the control plane once it is late, or that a running cluster no
    /// longer answers.
    fn problem(&self, state: ClusterState, is_late: bool) -> Option<Problem> {
        match (&self.blocking_reason, state) {
            (_, ClusterState::Running) if self.observed.etcd_writable == Some(false) => {
                let detail = "etcd is full: the cluster rejects writes until space is freed.";
                Some(Problem::new(ProblemCode::DatastoreFull, detail))
            }
            (_, ClusterState::Running) => self.problem.clone(),
            (Some(blocking_reason), _) if is_late => Some(blocking_reason.problem()),
            (None, ClusterState::Degraded) => {
                let detail = format!("The cluster is not responding; waiting for {}", self.reason());
                Some(Problem::new(ProblemCode::ClusterUnreachable, detail))
            }
            _ => None,
        }
    }
}

/// What a cluster's row says after an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The word for how it is.
    pub state: ClusterState,
    /// The same in detail.
    pub conditions: Vec<Condition>,
    /// What is wrong, if something is.
    pub problem: Option<Problem>,
    /// The state in a sentence.
    pub message: String,
}

/// The state after a failed reconcile; `is_terminal` when only a new spec can help.
pub const fn state_after_failure(state: ClusterState, is_deleting: bool, is_terminal: bool) -> ClusterState {
    match state {
        _ if is_deleting => ClusterState::Deleting,
        ClusterState::Pending => ClusterState::Provisioning,
        _ if is_terminal => ClusterState::Error,
        other => other,
    }
}

/// The problem of a version that is not available.
pub fn version_missing(version: KubernetesVersion) -> Problem {
    let remediation = if version.is_known() {
        format!("Run `pilothouse bundle build --version {version}`, then run `pilothouse up` again.")
    } else {
        let offered = KubernetesVersion::default();
        format!(
            "Make a cluster of Kubernetes {offered} and move to it before this one's certificates end, or go back to the release of \
             Pilothouse that has {version}."
        )
    };
    let detail = format!("This installation no longer provides Kubernetes {version}: the cluster is left unchanged.");
    Problem::new(ProblemCode::VersionMissing, detail).with_remediation(remediation)
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::id::ClusterId;
    use crate::observation::WaitingReason;
    use crate::status::Class;

    fn pod(component: Component, name: &str, address: [u8; 4]) -> PodInfo {
        let cluster = ClusterId::from_uuid(uuid::Uuid::from_u128(1));
        let (name, address) = (name.to_owned(), Some(address.into()));
        PodInfo { cluster, component, name, address, ready: true, terminating: false, waiting_reason: None }
    }

    fn report(observation: &Observation, state: ClusterState, is_late: bool) -> Report {
        let (observed, now) = (&observation.observed, OffsetDateTime::UNIX_EPOCH);
        let situation = Situation { observed, generation: 1, deleting: false, state, conditions: &[], now };
        observation.report(&situation, is_late, None)
    }

    #[test]
    fn a_serving_pod_gives_its_address_and_the_current_one_is_asked_first() {
        let [one, two] = [4, 5].map(|last| pod(Component::ControlPlane, &format!("api-{last}"), [10, 0, 0, last]));
        let pods = [pod(Component::Etcd, "etcd-0", [10, 0, 0, 1]), one, two];
        assert_eq!(addresses(&pods, Some("10.0.0.5:6443")), ["10.0.0.5:6443", "10.0.0.4:6443"]);
        let serving = Some("10.0.0.4:6443".to_owned());
        let seen = Observation::inside(Some(&pods), Some("10.0.0.5:6443"), Some(Health::Ready), serving.clone());
        assert_eq!((seen.observed.endpoint, seen.candidates), (serving, 2));
        assert_eq!((seen.observed.etcd_ready, seen.observed.control_plane_ready), (Some(true), Some(true)));
    }

    #[test]
    fn an_address_is_kept_while_its_pod_lives_or_nobody_knows() {
        let current = Some("10.0.0.4:6443");
        let endpoint = |pods: Option<&[PodInfo]>| Observation::inside(pods, current, None, None).observed.endpoint;
        assert_eq!(endpoint(None).as_deref(), current, "unknown is not absent");
        assert_eq!(endpoint(Some(&[pod(Component::ControlPlane, "a", [10, 0, 0, 4])])).as_deref(), current);
        assert_eq!(endpoint(Some(&[])), None);
        let unknown = Observation::inside(None, None, None, None);
        assert_eq!((unknown.observed.probe, unknown.observed.etcd_ready), (None, None));
        assert_eq!(unknown.reason(), "the list of the host's pods");
    }

    #[test]
    fn what_blocks_is_a_problem_only_when_it_lasts() {
        let waiting_reason = WaitingReason { reason: "Unschedulable".into(), message: "Insufficient memory".into() };
        let pods = [PodInfo { waiting_reason: Some(waiting_reason), ..pod(Component::Etcd, "etcd-0", [10, 0, 0, 1]) }];
        let seen = Observation::inside(Some(&pods), None, None, None);
        assert_eq!(report(&seen, ClusterState::Provisioning, false).problem, None);
        let late = report(&seen, ClusterState::Provisioning, true);
        let problem = late.problem.unwrap();
        assert_eq!((problem.class, &problem.detail), (Class::Platform, &late.message));
        assert!(problem.code == ProblemCode::ControlPlanePods && seen.step_message() == problem.detail);
    }

    #[test]
    fn a_running_cluster_that_does_not_answer_is_unreachable_and_one_that_is_full_says_so() {
        let silent = Observation::inside(Some(&[]), None, None, None);
        let unreachable = report(&silent, ClusterState::Running, false);
        assert_eq!(unreachable.state, ClusterState::Degraded);
        assert!(unreachable.problem.unwrap().code == ProblemCode::ClusterUnreachable);
        let observed = Observed { probe: Some(true), etcd_writable: Some(false), ..Observed::default() };
        let full = report(&Observation { observed, ..silent }, ClusterState::Running, false);
        assert!(full.problem.unwrap().code == ProblemCode::DatastoreFull);
    }

    #[test]
    fn a_failure_never_makes_a_cluster_look_finished() {
        let after = |state, is_terminal| state_after_failure(state, false, is_terminal);
        assert_eq!(after(ClusterState::Pending, true), ClusterState::Provisioning);
        assert_eq!(after(ClusterState::Running, true), ClusterState::Error);
        assert_eq!(after(ClusterState::Running, false), ClusterState::Running);
        assert_eq!(state_after_failure(ClusterState::Running, true, true), ClusterState::Deleting);
    }

    #[test]
    fn a_version_that_no_command_brings_back_has_another_way_out() {
        let known = version_missing(KubernetesVersion::default());
        assert!(known.remediation.contains("bundle build --version 1.36.3"), "{}", known.remediation);
        let dropped = version_missing(KubernetesVersion::parse("1.29.14").unwrap());
        assert!(!dropped.remediation.contains("bundle build") && dropped.remediation.contains("1.36.3"));
    }
}
