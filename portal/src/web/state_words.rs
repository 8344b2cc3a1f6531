//! Every state of everything, as REST writes it and as a page shows it. What the command line prints of the same words is tested
//! in `cli` (`output/rows.rs`), by the lists of `api_types` that are compared here.

use super::ui::Status;
use super::view_models::{Check, Progress};
use api_types as api;
use migrations::{KubeconfigState, OperationState, StepState};
use std::fmt::Write;
use tenant_controlplane::status::{ClusterState, ConditionStatus, NodeState, PoolState};
use time::{Duration, OffsetDateTime};

/// The words of one enum, and those that the API promises: no more, and no less.
fn words(all: &[&'static str], promised: &[&'static str]) -> Vec<&'static str> {
    assert_eq!(all, promised, "what the API promises is what there is");
    all.to_vec()
}

/// A line for each word: whose state, the word of REST, the color and the text of the page.
fn lines(table: &mut String, what: &str, words: Vec<&'static str>, shown: impl Fn(&'static str) -> Status) {
    for word in words {
        let status = shown(word);
        assert_ne!(status.group, "unknown", "{what} {word} is shown as something that nobody knows");
        let badge = status.to_string();
        assert!(badge.contains(&format!("data-state=\"{}\"", status.group)) && badge.contains(&status.word), "{badge}");
        writeln!(table, "{what:<11}{word:<14}{:<11}{}", status.group, status.word).unwrap();
    }
}

fn operation(state: &str, step: &str) -> api::Operation {
    let step = api::Step {
        key: "etcd".into(),
        title: "etcd".into(),
        state: step.into(),
        attempt: 1,
        started_at: None,
        finished_at: None,
        duration_milliseconds: None,
        message: String::new(),
    };
    api::Operation {
        id: "op_1".into(),
        object: "operation".into(),
        kind: "cluster.create".into(),
        target: "cls_1".into(),
        cluster_id: None,
        organization_id: "org_1".into(),
        state: state.into(),
        percent: 0,
        steps: vec![step],
        error: None,
        actor: "usr_1".into(),
        created_at: OffsetDateTime::UNIX_EPOCH,
        finished_at: Some(OffsetDateTime::UNIX_EPOCH),
        links: api::Links { this: String::new(), portal: None },
    }
}

fn condition(status: ConditionStatus) -> Check {
    let condition = api::Condition {
        kind: "NodesHealthy".into(),
        status: status.to_string(),
        reason: String::new(),
        message: String::new(),
        observed_generation: 1,
        last_transition_time: OffsetDateTime::UNIX_EPOCH,
    };
    Check::of(&condition, false)
}

/// The kubeconfig's states, none left out.
fn kubeconfig_states() -> [KubeconfigState; 5] {
    let all = [
        KubeconfigState::Pending,
        KubeconfigState::Active,
        KubeconfigState::Revoking,
        KubeconfigState::Revoked,
        KubeconfigState::Expired,
    ];
    for state in all {
        match state {
            KubeconfigState::Pending
            | KubeconfigState::Active
            | KubeconfigState::Revoking
            | KubeconfigState::Revoked
            | KubeconfigState::Expired => {}
        }
    }
    all
}

#[test]
fn every_state_has_a_word_of_its_own() {
    let mut table = String::new();
    let all: Vec<_> = ClusterState::ALL.iter().map(|state| state.as_str()).collect();
    lines(&mut table, "cluster", words(&all, &api::Cluster::STATES), Status::cluster);
    let all: Vec<_> = PoolState::ALL.iter().map(|state| state.as_str()).collect();
    lines(&mut table, "pool", words(&all, &api::NodePool::STATES), Status::pool);
    let all: Vec<_> = NodeState::ALL.iter().map(|state| state.as_str()).collect();
    lines(&mut table, "node", words(&all, &api::Node::STATES), Status::node);
    let all = kubeconfig_states().map(KubeconfigState::as_str);
    lines(&mut table, "kubeconfig", words(&all, &api::Kubeconfig::STATES), |state| {
        let past = if state == "expired" { -1 } else { 1 };
        Status::kubeconfig(state, OffsetDateTime::now_utc() + Duration::days(30) * past)
    });
    let all: Vec<_> = OperationState::ALL.iter().map(|state| state.as_str()).collect();
    for word in words(&all, &api::Operation::STATES) {
        let progress = Progress::of(&operation(word, "running"));
        writeln!(table, "{:<11}{word:<14}{:<11}{}", "operation", progress.running, progress.heading).unwrap();
    }
    let all: Vec<_> = StepState::ALL.iter().map(|state| state.as_str()).collect();
    for word in words(&all, &api::Step::STATES) {
        let step = &Progress::of(&operation("running", word)).steps[0];
        assert_eq!(step.state, word, "a step has a color for each of its states");
        writeln!(table, "{:<11}{word:<14}{:<11}{}", "step", step.icon, step.word).unwrap();
    }
    for status in ConditionStatus::ALL {
        let check = condition(*status);
        writeln!(table, "{:<11}{:<14}{:<11}{}", "condition", status.as_str(), check.state, check.word).unwrap();
    }
    insta::assert_snapshot!("state_words", table);
}
