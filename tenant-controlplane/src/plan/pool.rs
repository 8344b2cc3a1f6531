//! A node pool: which nodes to add or let go, and what to tell people of those there are.

use std::cmp::Reverse;

use time::OffsetDateTime;

use crate::status::{NodeState, PoolState, Problem};

/// What a pool's nodes should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Desired {
    /// So many of a provider's machines.
    Count(usize),
    /// Whatever machines users bring.
    Brought,
}

/// A node as its pool sees it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a str,
    /// The word for how it is.
    pub state: NodeState,
    /// The same in a sentence.
    pub message: &'a str,
    /// Whether it was asked to go.
    pub is_deleting: bool,
    /// What is wrong, if something is.
    pub problem: Option<&'a Problem>,
    /// When its row was made.
    pub created_at: OffsetDateTime,
}

/// What to do so that there are as many nodes as desired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scaling {
    /// How many to add.
    pub missing: usize,
    /// Which to let go, as places in the list.
    pub surplus: Vec<usize>,
}

/// How to get from these nodes to that many. Those that do no work go first, then the newest.
pub fn scale(members: &[Member<'_>], desired: usize) -> Scaling {
    let mut kept: Vec<usize> = (0..members.len()).filter(|place| !members[*place].is_deleting).collect();
    let (missing, excess) = (desired.saturating_sub(kept.len()), kept.len().saturating_sub(desired));
    kept.sort_by_key(|place| (members[*place].state == NodeState::Ready, Reverse(members[*place].created_at)));
    kept.truncate(excess);
    Scaling { missing, surplus: kept }
}

/// What to tell people of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The word for how it is.
    pub state: PoolState,
    /// The same in a sentence.
    pub message: String,
    /// What the operation waits for.
    pub waiting_for: String,
    /// Whether every machine exists.
    pub created: bool,
    /// Whether nothing is left to do.
    pub settled: bool,
    /// What is wrong, if something is.
    pub problem: Option<Problem>,
}

/// Of a pool whose cluster has no API server yet.
pub fn waiting(state: PoolState) -> Summary {
    let state = if state == PoolState::Pending { PoolState::Pending } else { PoolState::Scaling };
    let (message, waiting_for) = ("waiting for the cluster's API server".to_owned(), String::new());
    Summary { state, message, waiting_for, created: false, settled: false, problem: None }
}

/// Of a pool that waits for its last nodes to go.
pub fn deleting(members: &[Member<'_>]) -> Summary {
    let names: Vec<_> = members.iter().take(3).map(|node| format!("{} ({})", node.name, node.message)).collect();
    let more = if members.len() > names.len() { ", …" } else { "" };
    let message = format!("waiting for {} of its nodes: {}{more}", members.len(), names.join(", "));
    let problem = members.iter().find_map(|node| node.problem.cloned());
    Summary { state: PoolState::Deleting, message, problem, ..waiting(PoolState::Deleting) }
}

/// Of a pool that should be there.
pub fn summarize(desired: Desired, members: &[Member<'_>]) -> Summary {
    let kept = || members.iter().filter(|node| !node.is_deleting);
    let going = members.iter().find(|node| node.is_deleting);
    let state = state(desired, members);
    let message = message(desired, members);
    let uncreated = count(members, NodeState::Pending) + count(members, NodeState::Creating);
    let settled = going.is_none() && (desired == Desired::Brought || state == PoolState::Ready);
    let problem = kept().find_map(|node| node.problem.cloned());
    let details = going.map(|node| format!("{message} ({}: {})", node.name, node.message));
    let waiting_for = problem.as_ref().map(|problem| problem.detail.clone()).or(details);
    let waiting_for = waiting_for.unwrap_or_else(|| message.clone());
    Summary { state, message, waiting_for, created: uncreated == 0, settled, problem }
}

fn count(members: &[Member<'_>], state: NodeState) -> usize {
    members.iter().filter(|node| node.state == state).count()
}

/// How many should be ready, and how many are asked to go.
fn target(desired: Desired, members: &[Member<'_>]) -> (usize, usize) {
    let going = members.iter().filter(|node| node.is_deleting).count();
    match desired {
        Desired::Count(count) => (count, going),
        Desired::Brought => (members.len() - going, going),
    }
}

fn state(desired: Desired, members: &[Member<'_>]) -> PoolState {
    let (wanted, going) = target(desired, members);
    let broken = members.iter().any(|node| matches!(node.state, NodeState::NotReady | NodeState::Lost));
    match broken {
        _ if count(members, NodeState::Ready) >= wanted && going == 0 => PoolState::Ready,
        true => PoolState::Degraded,
        false => PoolState::Scaling,
    }
}

fn message(desired: Desired, members: &[Member<'_>]) -> String {
    let (ready, (wanted, going)) = (count(members, NodeState::Ready), target(desired, members));
    match (wanted, going) {
        (0, 0) if desired == Desired::Brought => "no machine has joined yet".to_owned(),
        (_, 0) => format!("{ready} of {wanted} nodes are ready"),
        (_, _) => format!("{ready} of {wanted} nodes are ready, {going} being removed"),
    }
}

/// The state after a failed reconcile; `is_terminal` when only a new spec can help.
pub const fn state_after_failure(state: PoolState, is_deleting: bool, is_terminal: bool) -> PoolState {
    match state {
        _ if is_deleting => PoolState::Deleting,
        _ if is_terminal => PoolState::Error,
        PoolState::Pending => PoolState::Scaling,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::ProblemCode;
    use time::Duration;

    fn member(name: &str, state: NodeState) -> Member<'_> {
        let created_at = OffsetDateTime::UNIX_EPOCH;
        Member { name, state, message: "on its way", is_deleting: false, problem: None, created_at }
    }

    #[test]
    fn what_does_no_work_goes_first_then_the_newest() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds);
        let members = [
            Member { created_at: at(1), ..member("a", NodeState::Ready) },
            Member { created_at: at(2), ..member("b", NodeState::Ready) },
            Member { created_at: at(0), ..member("c", NodeState::Joining) },
            Member { is_deleting: true, ..member("d", NodeState::Ready) },
        ];
        assert_eq!(scale(&members, 3), Scaling::default());
        assert_eq!(scale(&members, 5), Scaling { missing: 2, surplus: vec![] });
        assert_eq!(scale(&members, 1), Scaling { missing: 0, surplus: vec![2, 1] });
        assert_eq!(scale(&members, 0).surplus, [2, 1, 0]);
    }

    #[test]
    fn a_pool_is_ready_when_as_many_as_desired_are() {
        let members = [member("a", NodeState::Ready), member("b", NodeState::Creating)];
        let summary = summarize(Desired::Count(2), &members);
        assert_eq!((summary.state, summary.created, summary.settled), (PoolState::Scaling, false, false));
        assert_eq!(summary.message, "1 of 2 nodes are ready");
        let summary = summarize(Desired::Count(1), &members[..1]);
        assert_eq!((summary.state, summary.created, summary.settled), (PoolState::Ready, true, true));
        let lost = [member("a", NodeState::Ready), member("b", NodeState::Lost)];
        assert_eq!(summarize(Desired::Count(2), &lost).state, PoolState::Degraded);
    }

    #[test]
    fn of_machines_that_users_bring_all_that_joined_are_desired() {
        let none = summarize(Desired::Brought, &[]);
        assert_eq!(
            (none.state, none.settled, none.message.as_str()),
            (PoolState::Ready, true, "no machine has joined yet")
        );
        let joining = summarize(Desired::Brought, &[member("a", NodeState::Joining)]);
        assert_eq!((joining.state, joining.settled), (PoolState::Scaling, true));
    }

    #[test]
    fn the_operation_waits_for_a_problem_or_for_what_goes() {
        let going = Member { is_deleting: true, ..member("b", NodeState::Ready) };
        let summary = summarize(Desired::Count(1), &[member("a", NodeState::Ready), going]);
        assert_eq!(summary.waiting_for, "2 of 1 nodes are ready, 1 being removed (b: on its way)");
        assert!(!summary.settled);
        let problem = Problem::new(ProblemCode::MachineLost, "gone");
        let lost = Member { problem: Some(&problem), ..member("a", NodeState::Lost) };
        let summary = summarize(Desired::Count(1), &[lost, going]);
        assert_eq!((summary.waiting_for.as_str(), summary.problem), ("gone", Some(problem)));
    }

    #[test]
    fn a_pool_that_goes_names_the_first_of_its_nodes() {
        let members = ["a", "b", "c", "d"].map(|name| member(name, NodeState::Deleting));
        let summary = deleting(&members);
        assert_eq!(summary.state, PoolState::Deleting);
        let message = "waiting for 4 of its nodes: a (on its way), b (on its way), c (on its way), …";
        assert_eq!(summary.message, message);
    }
}
