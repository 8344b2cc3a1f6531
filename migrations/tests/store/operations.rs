//! Operations as people watch them.

use std::time::{Duration, Instant};

use migrations::*;
use tenant_controlplane::status::{Class, Problem, ProblemCode};

use crate::harness::*;

fn update<'a>(key: &'a str, state: StepState, message: &'a str) -> StepUpdate<'a> {
    StepUpdate { key, title: "Start etcd", state, message }
}

pub async fn steps_keep_their_history(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let operations = fixture.store.operations();
    let cluster = tenant.cluster("demo").await;
    let id = cluster.operation.unwrap();
    operations.plan(id, &[("etcd", "Start etcd"), ("api", "Start the API server")]).await.unwrap();
    let planned = operations.load(id).await.unwrap();
    assert_eq!(planned.state, OperationState::Pending);
    assert!(planned.steps.iter().all(|step| step.state == StepState::Waiting && step.attempt == 0));
    operations.step(id, update("etcd", StepState::Running, "")).await.unwrap();
    let running = operations.load(id).await.unwrap();
    assert_eq!((running.state, running.steps[0].attempt), (OperationState::Running, 1));
    let started = running.steps[0].started_at;
    assert!(started.is_some());
    operations.step(id, update("etcd", StepState::Running, "")).await.unwrap();
    assert_eq!(operations.load(id).await.unwrap(), running, "the same news again is no news");
    operations.step(id, update("etcd", StepState::Failed, "no volume")).await.unwrap();
    operations.step(id, update("etcd", StepState::Running, "")).await.unwrap();
    let again = operations.load(id).await.unwrap().steps[0].clone();
    assert_eq!((again.attempt, again.message.as_str(), again.started_at), (2, "no volume", started));
    assert!(again.finished_at.is_none());
    operations.step(id, update("etcd", StepState::Running, "no node has room")).await.unwrap();
    operations.step(id, update("etcd", StepState::Running, "")).await.unwrap();
    assert_eq!(operations.load(id).await.unwrap().steps[0].message, "", "what it waited for has come");
    operations.step(id, update("etcd", StepState::Done, "")).await.unwrap();
    operations.plan(id, &[("etcd", "Start etcd"), ("probe", "Look from outside")]).await.unwrap();
    let done = operations.load(id).await.unwrap();
    assert_eq!((done.steps[0].state, done.steps[0].message.as_str()), (StepState::Done, ""));
    assert_eq!(done.steps.iter().map(|step| step.key.as_str()).collect::<Vec<_>>(), ["etcd", "api", "probe"]);
    let problem = Problem {
        code: ProblemCode::ControlPlanePods.into(),
        class: Class::Platform,
        detail: "d".to_owned(),
        remediation: "r".to_owned(),
    };
    operations.step(id, update("api", StepState::Running, "")).await.unwrap();
    operations.finish(id, Outcome::Failed(problem.clone())).await.unwrap();
    let failed = operations.get(tenant.organization, id).await.unwrap();
    assert_eq!((failed.state, failed.problem.as_ref()), (OperationState::Failed, Some(&problem)));
    assert_eq!(failed.steps[1].state, StepState::Failed);
    operations.finish(id, Outcome::Succeeded).await.unwrap();
    operations.step(id, update("api", StepState::Done, "")).await.unwrap();
    assert_eq!(operations.load(id).await.unwrap(), failed, "what has ended stays as it is");
    let target = cluster.id.to_string();
    assert!(operations.current_for(&target).await.unwrap().is_none());
    assert_eq!(operations.list(tenant.organization, &target, Page::default()).await.unwrap(), [failed]);
}

/// Later than any test waits: who ends before was woken by news.
const BY_THE_CLOCK: Duration = Duration::from_secs(3600);

pub async fn waiting_ends_with_the_operation(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let operations = fixture.store.operations();
    let (org, id) = (tenant.organization, tenant.cluster("demo").await.operation.unwrap());
    let begun = Instant::now();
    let waited = operations.wait(org, id, Duration::from_millis(100)).await.unwrap();
    assert!(!waited.is_finished() && begun.elapsed() >= Duration::from_millis(100));
    let other = fixture.replica().await;
    let store = fixture.store.clone();
    let steps = tokio::spawn(async move { store.operations().wait_change(org, id, 1, BY_THE_CLOCK).await });
    let store = fixture.store.clone();
    let end = tokio::spawn(async move { store.operations().wait(org, id, BY_THE_CLOCK).await });
    // On SQLite news stay in the process: there the same store speaks.
    let speaker = if fixture.is_sqlite() { fixture.store.clone() } else { other };
    speaker.operations().step(id, update("etcd", StepState::Running, "")).await.unwrap();
    assert_eq!(soon(steps).await.unwrap().unwrap().version, 2);
    assert!(!end.is_finished(), "a step is not the end");
    speaker.operations().finish(id, Outcome::Succeeded).await.unwrap();
    let done = soon(end).await.unwrap().unwrap();
    assert_eq!((done.state, done.steps[0].state), (OperationState::Succeeded, StepState::Done));
}

pub async fn audit_is_read_backwards(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let audit = fixture.store.audit();
    let organization = Some(tenant.organization);
    for number in 0..5 {
        let detail = number.to_string();
        let new = NewAudit { organization, actor: Actor::System, action: "test", target: "x", detail: &detail };
        audit.record(new).await.unwrap();
    }
    let first = audit.list(tenant.organization, Page::first(2)).await.unwrap();
    let next = Page { after: Some(first[1].id.uuid()), limit: 2 };
    let next = audit.list(tenant.organization, next).await.unwrap();
    let details: Vec<_> = first.iter().chain(&next).map(|entry| entry.detail.as_str()).collect();
    assert_eq!((details, first[0].actor.as_str()), (vec!["4", "3", "2", "1"], "system"));
}
