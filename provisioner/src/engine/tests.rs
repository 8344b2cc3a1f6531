//! The engine alone: leases, failures, places and nudges, with work that a test controls.

use super::*;
use crate::testing::store;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// What a scripted reconcile does.
#[derive(Clone)]
enum Act {
    End(Outcome),
    Fail,
    Panic,
    Stay,
}

struct Script {
    act: Box<dyn Fn(usize) -> Act + Send + Sync>,
    calls: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
    begun: mpsc::UnboundedSender<Uuid>,
}

struct Staying<'a>(&'a AtomicUsize);

impl Drop for Staying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Reconcile for Script {
    async fn reconcile(&self, _: WorkKind, id: Uuid) -> Result<Outcome, ReconcileError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let _staying = Staying(&self.now);
        self.begun.send(id).unwrap();
        match (self.act)(call) {
            Act::End(outcome) => Ok(outcome),
            Act::Fail => Err(ReconcileError::new(ProblemCode::Defect, "told to fail")),
            Act::Panic => panic!("told to panic"),
            Act::Stay => std::future::pending().await,
        }
    }
}

struct Rig {
    _dir: tempfile::TempDir,
    store: Store,
    script: Arc<Script>,
    begun: mpsc::UnboundedReceiver<Uuid>,
    cancel: CancellationToken,
    owner: LeaseOwner,
}

async fn rig(act: impl Fn(usize) -> Act + Send + Sync + 'static) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let (sender, begun) = mpsc::unbounded_channel();
    let counter = AtomicUsize::default;
    let script =
        Arc::new(Script { act: Box::new(act), calls: counter(), now: counter(), most: counter(), begun: sender });
    let (cancel, owner) = (CancellationToken::new(), LeaseOwner::new(Uuid::now_v7()));
    Rig { _dir: dir, store, script, begun, cancel, owner }
}

fn quick() -> Tuning {
    let backoff = crate::backoff::Backoff::new(Duration::from_millis(5), Duration::from_millis(20)).unwrap();
    Tuning {
        lease: Duration::from_millis(300),
        shutdown_timeout: Duration::from_millis(200),
        backoff,
        ..Tuning::default()
    }
}

impl Rig {
    fn start(&self, tuning: Tuning) -> (Arc<Engine>, tokio::task::JoinHandle<()>) {
        let engine = Engine::new(self.store.clone(), Arc::clone(&self.script) as _, self.owner.clone(), tuning);
        let task = tokio::spawn(Arc::clone(&engine).run(self.cancel.clone()));
        (engine, task)
    }

    async fn due(&self) -> Uuid {
        let id = Uuid::now_v7();
        self.store.work().due(WorkKind::Cluster, id).await.unwrap();
        id
    }

    async fn next(&mut self) -> Uuid {
        tokio::time::timeout(Duration::from_secs(5), self.begun.recv()).await.unwrap().unwrap()
    }

    async fn claim(&self) -> Option<Work> {
        self.store.work().claim("other", Duration::from_secs(5), &[WorkKind::Cluster]).await.unwrap()
    }
}

#[tokio::test]
async fn due_work_runs_at_once_and_gone_work_is_forgotten() {
    let mut rig = rig(|_| Act::End(Outcome::Gone)).await;
    let (_, task) = rig.start(quick());
    let begun = std::time::Instant::now();
    let id = rig.due().await;
    assert_eq!(rig.next().await, id);
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    rig.cancel.cancel();
    task.await.unwrap();
    assert_eq!(rig.store.work().next_due(&[WorkKind::Cluster]).await.unwrap(), None);
}

#[tokio::test]
async fn failures_and_panics_come_back() {
    let mut rig = rig(|call| [Act::Fail, Act::Panic, Act::End(Outcome::Done)][call.min(2)].clone()).await;
    let (_, task) = rig.start(quick());
    let id = rig.due().await;
    for _ in 0..3 {
        assert_eq!(rig.next().await, id);
    }
    rig.cancel.cancel();
    task.await.unwrap();
    assert!(rig.claim().await.is_none(), "what is done is not due for a while");
}

#[tokio::test]
async fn waiting_is_not_a_failure_and_short_waits_are_kept() {
    let mut rig = rig(|call| match call {
        0 => Act::End(Outcome::waiting("x", Duration::from_millis(20))),
        _ => Act::End(Outcome::Done),
    })
    .await;
    let (_, task) = rig.start(quick());
    rig.due().await;
    rig.next().await;
    let begun = std::time::Instant::now();
    rig.next().await;
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    rig.cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_lease_is_kept_while_the_work_goes_on() {
    let mut rig = rig(|_| Act::Stay).await;
    let (_, task) = rig.start(quick());
    rig.due().await;
    rig.next().await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(rig.claim().await.is_none(), "three leases long nobody else gets it");
    rig.cancel.cancel();
    task.await.unwrap();
    assert!(rig.claim().await.is_some(), "the end gives leases back");
}

#[tokio::test]
async fn a_lost_lease_cancels_the_run() {
    let mut rig = rig(|_| Act::Stay).await;
    let (_, task) = rig.start(Tuning { concurrency: 1, ..quick() });
    rig.due().await;
    // Its one place is taken, so it cannot take the work back before the thief does.
    rig.next().await;
    assert_eq!(rig.store.work().release(&rig.owner.to_string()).await.unwrap(), 1);
    let stolen = rig.claim().await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), async {
        while rig.script.now.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert!(rig.store.work().renew(&stolen, Duration::from_secs(5)).await.unwrap(), "the thief keeps it");
    rig.cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_new_process_takes_over_its_predecessors_leases() {
    let mut rig = rig(|_| Act::End(Outcome::Gone)).await;
    let (instance, hour) = (Uuid::now_v7(), Duration::from_secs(3600));
    let predecessor = LeaseOwner::new(instance).to_string();
    let id = rig.due().await;
    rig.store.work().claim(&predecessor, hour, &[WorkKind::Cluster]).await.unwrap().unwrap();
    let others = rig.due().await;
    let other_instance = LeaseOwner::new(Uuid::now_v7()).to_string();
    let held = rig.store.work().claim(&other_instance, hour, &[WorkKind::Cluster]).await.unwrap().unwrap();
    assert_eq!(held.id, others);
    rig.owner = LeaseOwner::new(instance);
    assert_ne!(rig.owner.to_string(), predecessor, "each process has a name of its own");
    let (_, task) = rig.start(quick());
    assert_eq!(rig.next().await, id);
    rig.cancel.cancel();
    task.await.unwrap();
    assert!(rig.store.work().renew(&held, hour).await.unwrap(), "another instance's process may be alive");
}

#[tokio::test]
async fn no_more_run_at_once_than_there_are_places() {
    let mut rig = rig(|_| Act::Stay).await;
    let (_, task) = rig.start(Tuning { concurrency: 2, ..quick() });
    for _ in 0..5 {
        rig.due().await;
    }
    rig.next().await;
    rig.next().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((rig.script.most.load(Ordering::SeqCst), rig.script.calls.load(Ordering::SeqCst)), (2, 2));
    rig.cancel.cancel();
    tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_nudge_during_a_run_runs_it_once_more() {
    let mut rig =
        rig(
            |call| {
                if call == 0 {
                    Act::End(Outcome::waiting("x", Duration::from_secs(60)))
                } else {
                    Act::End(Outcome::Done)
                }
            },
        )
        .await;
    let (engine, task) = rig.start(quick());
    let id = rig.due().await;
    rig.next().await;
    engine.wake(WorkKind::Cluster, id).await;
    assert_eq!(rig.next().await, id);
    rig.cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn one_kinds_work_does_not_hold_up_anothers() {
    let mut rig = rig(|_| Act::Stay).await;
    let (_, task) = rig.start(Tuning { concurrency: 2, ..quick() });
    for _ in 0..5 {
        rig.due().await;
    }
    rig.next().await;
    rig.next().await;
    let node = Uuid::now_v7();
    rig.store.work().due(WorkKind::Node, node).await.unwrap();
    assert_eq!(rig.next().await, node);
    rig.cancel.cancel();
    tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
}
