//! Two provisioners on one database, as two processes have them: each reconciles what the other does not, and what one that was killed
//! held is done by the other, once.

use super::*;
use crate::testing::{Server, is_wanted, store};
use migrations::Kek;
use std::collections::BTreeMap;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

const MANY: usize = 20;

/// What both processes have done.
#[derive(Default)]
struct Ledger {
    begun: Mutex<Vec<(&'static str, Uuid)>>,
    ended: Mutex<Vec<(&'static str, Uuid)>>,
    moved: Notify,
}

impl Ledger {
    fn note(&self, list: &Mutex<Vec<(&'static str, Uuid)>>, process: &'static str, id: Uuid) {
        list.lock().unwrap().push((process, id));
        self.moved.notify_one();
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                self.moved.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
    }

    fn has_begun(&self, id: Uuid) -> bool {
        self.begun.lock().unwrap().iter().any(|(_, begun)| *begun == id)
    }
}

/// A process's reconciles: the first waits until the other process is in one too, and those of `held` never end.
struct Reconciles {
    process: &'static str,
    ledger: Arc<Ledger>,
    both: Arc<Barrier>,
    calls: std::sync::atomic::AtomicUsize,
    held: Option<Uuid>,
}

#[async_trait]
impl Reconcile for Reconciles {
    async fn reconcile(&self, _: WorkKind, id: Uuid) -> Result<Outcome, ReconcileError> {
        self.ledger.note(&self.ledger.begun, self.process, id);
        if self.held == Some(id) {
            std::future::pending::<()>().await;
        }
        if self.calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            self.both.wait().await;
        }
        self.ledger.note(&self.ledger.ended, self.process, id);
        Ok(Outcome::Gone)
    }
}

struct Processes {
    stores: [Store; 2],
    ledger: Arc<Ledger>,
    cancel: CancellationToken,
}

impl Processes {
    fn new(stores: [Store; 2]) -> Self {
        Self { stores, ledger: Arc::default(), cancel: CancellationToken::new() }
    }

    /// A provisioner with one place, that waits in its first reconcile for as many others as `both` says.
    fn start(&self, number: usize, both: &Arc<Barrier>, held: Option<Uuid>) -> JoinHandle<()> {
        let tuning = Tuning { concurrency: 1, lease: Duration::from_millis(500), ..Tuning::default() };
        let (process, ledger, calls) = (["one", "two"][number], Arc::clone(&self.ledger), Default::default());
        let runner = Arc::new(Reconciles { process, ledger, both: Arc::clone(both), calls, held });
        let owner = LeaseOwner::new(Uuid::now_v7());
        let engine = Engine::new(self.stores[number].clone(), runner, owner, tuning);
        tokio::spawn(engine.run(self.cancel.clone()))
    }

    async fn due(&self) -> Uuid {
        let id = Uuid::now_v7();
        self.stores[0].work().due(WorkKind::Cluster, id).await.unwrap();
        id
    }
}

async fn each_reconciles_what_the_other_does_not(stores: [Store; 2]) {
    let processes = Processes::new(stores);
    for _ in 0..MANY {
        processes.due().await;
    }
    let both = Arc::new(Barrier::new(2));
    let running = [0, 1].map(|number| processes.start(number, &both, None));
    let ledger = &processes.ledger;
    ledger.until(|ledger| ledger.ended.lock().unwrap().len() >= MANY).await;
    processes.cancel.cancel();
    for one in running {
        one.await.unwrap();
    }
    let mut times: BTreeMap<Uuid, usize> = BTreeMap::new();
    ledger.begun.lock().unwrap().iter().for_each(|(_, id)| *times.entry(*id).or_default() += 1);
    assert_eq!((times.len(), times.values().max()), (MANY, Some(&1)), "nothing is done twice");
    for process in ["one", "two"] {
        assert!(ledger.ended.lock().unwrap().iter().any(|(by, _)| *by == process), "{process} had its part");
    }
}

async fn what_a_killed_one_held_is_done_by_the_other(stores: [Store; 2]) {
    let processes = Processes::new(stores);
    let (alone, ledger) = (Arc::new(Barrier::new(1)), &processes.ledger);
    let held = processes.due().await;
    let killed = processes.start(0, &alone, Some(held));
    ledger.until(|ledger| ledger.has_begun(held)).await;
    // Without a drain: its lease stays, and nobody renews it.
    killed.abort();
    assert!(killed.await.unwrap_err().is_cancelled());
    let other = processes.start(1, &alone, None);
    let next = processes.due().await;
    ledger.until(|ledger| ledger.ended.lock().unwrap().len() == 2).await;
    processes.cancel.cancel();
    other.await.unwrap();
    let mut ended = ledger.ended.lock().unwrap().clone();
    ended.sort_by_key(|(_, id)| *id);
    assert_eq!(ended, [("two", held), ("two", next)], "each once, and none of it by the one that was killed");
}

/// A process that slept longer than its lease comes back and settles what another has by now.
async fn a_late_one_settles_nothing([sleeper, awake]: [Store; 2]) {
    let (id, hour) = (Uuid::now_v7(), Duration::from_secs(3600));
    sleeper.work().due(WorkKind::Cluster, id).await.unwrap();
    let claim = async |store: &Store, lease| {
        let owner = LeaseOwner::new(Uuid::now_v7()).to_string();
        store.work().claim(&owner, lease, &[WorkKind::Cluster]).await.unwrap().unwrap()
    };
    let late = claim(&sleeper, Duration::ZERO).await;
    let held = claim(&awake, hour).await;
    assert!(!sleeper.work().renew(&late, hour).await.unwrap(), "its reconcile is cancelled");
    sleeper.work().settle(&late, Settle::Done).await.unwrap();
    assert!(awake.work().renew(&held, hour).await.unwrap(), "the lease and the work are still there");
}

/// Two stores on one SQLite file: neither hears the other's changes.
async fn on_a_file() -> ([Store; 2], tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let stores = [store(&dir).await, store(&dir).await];
    (stores, dir)
}

/// Two stores on one PostgreSQL server, as two machines have them.
async fn on_a_server() -> Option<([Store; 2], Server)> {
    if !is_wanted() {
        return None;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = Server::start();
    let open = async || loop {
        match Store::connect(&server.url("postgres"), Kek::from_bytes(&[7; 32])).await {
            Ok(store) => break store,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let opened = async { [open().await, open().await] };
    let stores = tokio::time::timeout(Duration::from_secs(60), opened).await.unwrap();
    Some((stores, server))
}

macro_rules! on_both {
    ($($story:ident,)+) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                let (stores, _dir) = super::on_a_file().await;
                super::$story(stores).await;
            })+
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                if let Some((stores, _server)) = super::on_a_server().await {
                    super::$story(stores).await;
                }
            })+
        }
    };
}

on_both! {
    each_reconciles_what_the_other_does_not,
    what_a_killed_one_held_is_done_by_the_other,
    a_late_one_settles_nothing,
}
