//! Every state of everything, as REST writes it and as a page shows it. What the command line prints of the same words is tested
//! in `cli` (`output/rows.rs`), by the lists of `api_types` that are compared here.

use super::ui::Status;
use super::view_models::{Check, Progress};
use api_types as api;
use migrations::{KubeconfigState, OperationState, StepState};
use std::fmt::{Display, Write};
use strum::VariantArray;
use tenant_controlplane::status::{ClusterState, ConditionStatus, NodeState, PoolState};
use time::{Duration, OffsetDateTime};

/// The words of one enum are those that the API promises: no more, and no less.
fn words<T: VariantArray + Display>(promised: &[&'static str]) -> Vec<&'static str> {
    let all: Vec<String> = T::VARIANTS.iter().map(ToString::to_string).collect();
    assert_eq!(all, promised, "what the API promises is what there is");
    promised.to_vec()
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

#[test]
fn every_state_has_a_word_of_its_own() {
    let mut table = String::new();
    lines(&mut table, "cluster", words::<ClusterState>(&api::Cluster::STATES), Status::cluster);
    lines(&mut table, "pool", words::<PoolState>(&api::NodePool::STATES), Status::pool);
    lines(&mut table, "node", words::<NodeState>(&api::Node::STATES), Status::node);
    lines(&mut table, "kubeconfig", words::<KubeconfigState>(&api::Kubeconfig::STATES), |state| {
        let past = if state == "expired" { -1 } else { 1 };
        Status::kubeconfig(state, OffsetDateTime::now_utc() + Duration::days(30) * past)
    });
    for word in words::<OperationState>(&api::Operation::STATES) {
        let progress = Progress::of(&operation(word, "running"));
        writeln!(table, "{:<11}{word:<14}{:<11}{}", "operation", progress.running, progress.heading).unwrap();
    }
    for word in words::<StepState>(&api::Step::STATES) {
        let step = &Progress::of(&operation("running", word)).steps[0];
        assert_eq!(step.state, word, "a step has a color for each of its states");
        writeln!(table, "{:<11}{word:<14}{:<11}{}", "step", step.icon, step.word).unwrap();
    }
    for status in ConditionStatus::VARIANTS {
        let check = condition(*status);
        writeln!(table, "{:<11}{:<14}{:<11}{}", "condition", status.to_string(), check.state, check.word).unwrap();
    }
    insta::assert_snapshot!("state_words", table);
}
