//! Leases and news.

use std::collections::HashMap;
use std::time::Duration;

use migrations::*;
use uuid::Uuid;

use crate::harness::*;

const MINUTE: Duration = Duration::from_secs(60);

pub async fn everything_is_claimed_exactly_once(fixture: Fixture) {
    let store = fixture.store.clone();
    for _ in 0..30 {
        store.work().due(WorkKind::Cluster, Uuid::now_v7()).await.unwrap();
    }
    let with_key_lease: Shared<(String, Uuid)> = Shared::default();
    let claimers = (0..4).map(|number| {
        let (store, with_key_lease) = (store.clone(), with_key_lease.clone());
        tokio::spawn(async move {
            let owner = format!("worker-{number}");
            while let Some(work) = store.work().claim(&owner, MINUTE, &[WorkKind::Cluster]).await.unwrap() {
                assert_eq!(work.lease_owner, owner);
                with_key_lease.lock().unwrap().push((owner.clone(), work.id));
                tokio::task::yield_now().await;
            }
        })
    });
    for claimer in claimers.collect::<Vec<_>>() {
        claimer.await.unwrap();
    }
    // Skipping what another one is just taking may end a claimer early; nobody may take anything twice.
    while let Some(work) = store.work().claim("last", MINUTE, &[WorkKind::Cluster]).await.unwrap() {
        with_key_lease.lock().unwrap().push(("last".to_owned(), work.id));
    }
    let mut times: HashMap<Uuid, u32> = HashMap::new();
    for (_, id) in with_key_lease.lock().unwrap().iter() {
        *times.entry(*id).or_default() += 1;
    }
    assert_eq!((times.len(), times.values().max()), (30, Some(&1)));
}

pub async fn a_lease_ends_and_its_holder_is_fenced(fixture: Fixture) {
    let (store, id) = (&fixture.store, Uuid::now_v7());
    let work = store.work();
    work.due(WorkKind::Node, id).await.unwrap();
    assert!(work.claim("a", MINUTE, &[WorkKind::Cluster, WorkKind::NodePool]).await.unwrap().is_none());
    let old = work.claim("a", Duration::ZERO, &[WorkKind::Node]).await.unwrap().unwrap();
    assert!(work.renew(&old, Duration::ZERO).await.unwrap(), "late, but nobody took it");
    let new = work.claim("a", MINUTE, &[WorkKind::Node]).await.unwrap().unwrap();
    assert_eq!((new.id, new.fence), (old.id, old.fence + 1));
    assert!(!work.renew(&old, MINUTE).await.unwrap());
    work.settle(&old, Settle::Done).await.unwrap();
    work.settle(&old, Settle::Failed { backoff: Duration::ZERO }).await.unwrap();
    assert!(work.renew(&new, MINUTE).await.unwrap(), "the old holder changed nothing");
    assert!(work.claim("b", MINUTE, &[WorkKind::Node]).await.unwrap().is_none());
    let next = work.next_due(&[WorkKind::Node]).await.unwrap().unwrap();
    assert!(next > hence(50) && next < hence(70), "{next}");
    // Its process is known to be gone.
    assert_eq!(work.release("nobody").await.unwrap(), 0);
    assert_eq!(work.release_ended("b/", "b/2").await.unwrap(), 0);
    assert_eq!(work.release_ended("a", "a").await.unwrap(), 0, "it is alive");
    assert_eq!(work.release_ended("a", "a/2").await.unwrap(), 1);
    assert_eq!(work.release("a").await.unwrap(), 0, "dropped already");
    let taken = work.claim("b", MINUTE, &[WorkKind::Node]).await.unwrap().unwrap();
    work.settle(&taken, Settle::Done).await.unwrap();
    assert!(work.next_due(WorkKind::ALL).await.unwrap().is_none());
}

pub async fn a_wish_during_the_work_is_not_lost(fixture: Fixture) {
    let (work, id) = (fixture.store.work(), Uuid::now_v7());
    for outcome in [Settle::Done, Settle::Later(MINUTE), Settle::Failed { backoff: MINUTE }] {
        work.due(WorkKind::Cluster, id).await.unwrap();
        let held = work.claim("a", MINUTE, WorkKind::ALL).await.unwrap().unwrap();
        work.due(WorkKind::Cluster, id).await.unwrap();
        assert!(work.claim("b", MINUTE, WorkKind::ALL).await.unwrap().is_none(), "leased");
        let mut wake = work.changed();
        wake.mark_unchanged();
        work.settle(&held, outcome).await.unwrap();
        soon(wake.changed()).await.unwrap();
        let again = work.claim("b", MINUTE, WorkKind::ALL).await.unwrap().expect("due again at once");
        work.settle(&again, Settle::Done).await.unwrap();
        assert!(work.claim("c", MINUTE, WorkKind::ALL).await.unwrap().is_none(), "{outcome:?}");
    }
}

pub async fn settling_plans_the_next_look(fixture: Fixture) {
    let (work, id) = (fixture.store.work(), Uuid::now_v7());
    work.due_at(WorkKind::NodePool, id, hence(60)).await.unwrap();
    assert!(work.claim("a", MINUTE, WorkKind::ALL).await.unwrap().is_none());
    work.due_at(WorkKind::NodePool, id, hence(-5)).await.unwrap();
    work.due_at(WorkKind::NodePool, id, hence(300)).await.unwrap();
    let held = work.claim("a", MINUTE, WorkKind::ALL).await.unwrap().expect("the earlier time stays");
    work.settle(&held, Settle::Failed { backoff: Duration::ZERO }).await.unwrap();
    let held = work.claim("a", MINUTE, WorkKind::ALL).await.unwrap().unwrap();
    assert_eq!(held.failures, 1);
    work.settle(&held, Settle::Failed { backoff: Duration::ZERO }).await.unwrap();
    let held = work.claim("a", MINUTE, WorkKind::ALL).await.unwrap().unwrap();
    assert_eq!(held.failures, 2);
    work.settle(&held, Settle::Later(Duration::from_secs(30))).await.unwrap();
    let next = work.next_due(WorkKind::ALL).await.unwrap().unwrap();
    assert!(next > hence(20) && next < hence(40), "{next}");
    work.due(WorkKind::NodePool, id).await.unwrap();
    let held = work.claim("a", MINUTE, WorkKind::ALL).await.unwrap().unwrap();
    assert_eq!(held.failures, 0, "waiting is no failure and ends the count");
}

pub async fn news_travel_after_commit_and_not_before(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let cluster = tenant.cluster("demo").await;
    let listener = if fixture.is_sqlite() { fixture.store.clone() } else { fixture.replica().await };
    let mut changes = listener.changes();
    is_conflict(fixture.store.clusters().insert(tenant.new_cluster("demo")).await);
    fixture.store.clusters().request_deletion(tenant.organization, cluster.id, tenant.actor).await.unwrap();
    let mut kinds = Vec::new();
    while kinds.len() < 4 {
        let change = soon(changes.recv()).await.unwrap();
        assert!(change.id == cluster.id.uuid() || change.kind == ChangeKind::Operation, "{change:?}");
        kinds.push(change.kind);
    }
    kinds.sort();
    let operation = ChangeKind::Operation;
    assert_eq!(kinds, [ChangeKind::Cluster, operation, operation, ChangeKind::Work]);
    assert!(changes.try_recv().is_err(), "what was rolled back is no news");
}
