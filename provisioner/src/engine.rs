//! The loop: claim due work, reconcile it, settle it.
//!
//! The contract of a reconcile:
//! - Its input is an id. It re-reads everything else, and trusts no signal to carry facts.
//! - It may be cancelled at any `.await`, and may run twice. Unknown is not absent.
//! - Names are deterministic and objects are server-side applied; a machine's row exists before its provider is called, and the row's id
//!   is the idempotency token.
//! - It ends in an [`Outcome`], or in a [`ReconcileError`] that is retried with backoff.
//!
//! One lease per id, renewed while the reconcile runs; a lost lease cancels it. Work is found by signal and by timer. The end drains:
//! nothing new is claimed, what runs gets a while, the rest is dropped with its leases. Leases belong to a process ([`LeaseOwner`]), so
//! several may run on one database; what one that was killed held is taken over when its leases run out.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use migrations::{Settle, Store, StoreError, Work, WorkKind};
use tenant_controlplane::status::ProblemCode;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::backoff::jitter;
use crate::config::{LeaseOwner, Tuning};
use crate::error::ReconcileError;
use crate::trace;

/// The longest the loop sleeps without a signal: what another process made due, or what came due by itself.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How long to leave the database alone after it failed.
const DATABASE_REST: Duration = Duration::from_millis(500);
/// How long a terminal error waits for a new spec; a change of the spec makes it due at once.
const INVALID_REST: Duration = Duration::from_secs(3600);
/// How long something waits whose organization holds all the places it may.
const CROWDED: Duration = Duration::from_millis(500);

/// How a reconcile ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is as it should be; come back as routine.
    Done,
    /// Something has to happen first; come back after that long at the latest.
    Waiting {
        /// What is waited for, for the log.
        reason: String,
        /// When to look again.
        after: Duration,
    },
    /// Its organization holds all the places it may: nothing was looked at.
    Throttled,
    /// There is nothing left to reconcile.
    Gone,
}

impl Outcome {
    /// Waiting for `reason`.
    pub fn waiting(reason: impl Into<String>, after: Duration) -> Self {
        Self::Waiting { reason: reason.into(), after }
    }
}

/// What the engine runs.
#[async_trait]
pub trait Reconcile: Send + Sync + 'static {
    /// Makes one thing so.
    async fn reconcile(&self, kind: WorkKind, id: Uuid) -> Result<Outcome, ReconcileError>;
}

type Key = (WorkKind, Uuid);

/// Claims and runs work.
pub struct Engine {
    store: Store,
    runner: Arc<dyn Reconcile>,
    tuning: Tuning,
    owner: LeaseOwner,
    /// Its name in the store.
    owner_name: String,
    /// As [`Tuning::permits`] says.
    permits: [(WorkKind, Arc<Semaphore>); 3],
    wake: Notify,
    /// What runs now, and whether it was nudged meanwhile.
    running: Mutex<HashMap<Key, bool>>,
}

impl Engine {
    /// An engine that claims as `owner`.
    pub fn new(store: Store, runner: Arc<dyn Reconcile>, owner: LeaseOwner, tuning: Tuning) -> Arc<Self> {
        let permits = tuning.permits().map(|(kind, permits)| (kind, Arc::new(Semaphore::new(permits))));
        let (owner_name, wake, running) = (owner.to_string(), Notify::new(), Mutex::default());
        Arc::new(Self { store, runner, tuning, owner, owner_name, permits, wake, running })
    }

    /// Makes something due now. What runs at the moment runs once more afterwards.
    pub async fn wake(&self, kind: WorkKind, id: Uuid) {
        if let Some(nudged) = self.running().get_mut(&(kind, id)) {
            *nudged = true;
            return;
        }
        self.make_due(kind, id).await;
    }

    async fn make_due(&self, kind: WorkKind, id: Uuid) {
        if let Err(error) = self.store.work().due(kind, id).await {
            // The routine visit will find it.
            tracing::warn!(%kind, %id, error = crate::chain(&error), "schedule work");
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Key, bool>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until cancelled, then drains.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        self.release(self.store.work().release_ended(self.owner.prefix(), &self.owner_name)).await;
        let mut runs = JoinSet::new();
        let mut signal = self.store.work().changed();
        while !cancel.is_cancelled() {
            signal.borrow_and_update();
            if let Some((work, permit)) = self.claim().await {
                runs.spawn(Arc::clone(&self).one(work, permit));
                while runs.try_join_next().is_some() {}
                continue;
            }
            tokio::select! {
                _ = signal.changed() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LONGEST_SLEEP) => {}
                () = cancel.cancelled() => {}
            }
        }
        self.drain(runs).await;
    }

    /// Drops leases that nobody will renew: those of a process of this instance that died, and at the end its own.
    async fn release(&self, leases: impl Future<Output = Result<u64, StoreError>>) {
        match leases.await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "released the leases of an ended process"),
            Err(error) => tracing::warn!(error = crate::chain(&error), "release leases"),
        }
    }

    /// Due work of a kind that has a place left, with the place.
    async fn claim(&self) -> Option<(Work, OwnedSemaphorePermit)> {
        let free = self
            .permits
            .iter()
            .filter_map(|(kind, permits)| Some((*kind, Arc::clone(permits).try_acquire_owned().ok()?)));
        let mut free: HashMap<WorkKind, OwnedSemaphorePermit> = free.collect();
        let kinds: Vec<WorkKind> = free.keys().copied().collect();
        match self.store.work().claim(&self.owner_name, self.tuning.lease, &kinds).await {
            Ok(work) => {
                work.and_then(|work| Some((free.remove(&work.kind)?, work))).map(|(permit, work)| (work, permit))
            }
            Err(error) => {
                tracing::warn!(error = crate::chain(&error), "claim work");
                tokio::time::sleep(DATABASE_REST).await;
                None
            }
        }
    }

    async fn drain(&self, mut runs: JoinSet<()>) {
        let all = async { while runs.join_next().await.is_some() {} };
        if tokio::time::timeout(self.tuning.shutdown_timeout, all).await.is_err() {
            tracing::info!(count = runs.len(), "cancelling reconciles that did not finish in time");
            runs.shutdown().await;
        }
        self.release(self.store.work().release(&self.owner_name)).await;
    }

    async fn one(self: Arc<Self>, work: Work, permit: OwnedSemaphorePermit) {
        Arc::clone(&self).keep(work).await;
        drop(permit);
        self.wake.notify_one();
    }

    async fn keep(self: Arc<Self>, work: Work) {
        let key = (work.kind, work.id);
        self.running().insert(key, false);
        let run = trace::Run::start(&work);
        let reconcile = self.runner.reconcile(work.kind, work.id).instrument(run.span());
        let ended = tokio::select! {
            ended = AssertUnwindSafe(reconcile).catch_unwind() => Some(ended),
            () = self.keep_lease(&work) => None,
        };
        let nudged = self.running().remove(&key).unwrap_or_default();
        let Some(ended) = ended else {
            tracing::warn!(kind = %work.kind, id = %work.id, "lease lost: reconcile cancelled");
            run.end("lease_lost", true);
            return;
        };
        let ended = ended.unwrap_or_else(|_| Err(panicked()));
        run.end(outcome(&ended), ended.is_err());
        if let Err(error) = &ended {
            telemetry::metrics::count_failure(&work.kind.to_string(), &error.problem.code.to_string());
        }
        let gone = matches!(ended, Ok(Outcome::Gone));
        self.settle(&work, self.verdict(&work, ended)).await;
        if nudged && !gone {
            self.make_due(work.kind, work.id).await;
        }
    }

    /// Ends when the lease is lost.
    async fn keep_lease(&self, work: &Work) {
        let mut sure_until = tokio::time::Instant::now() + self.tuning.lease;
        loop {
            tokio::time::sleep(self.tuning.lease / 3).await;
            match self.store.work().renew(work, self.tuning.lease).await {
                Ok(true) => sure_until = tokio::time::Instant::now() + self.tuning.lease,
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(kind = %work.kind, id = %work.id, error = crate::chain(&error), "renew lease");
                    if tokio::time::Instant::now() + self.tuning.lease / 3 >= sure_until {
                        return;
                    }
                }
            }
        }
    }

    fn verdict(&self, work: &Work, ended: Result<Outcome, ReconcileError>) -> Settle {
        let (kind, id) = (work.kind, work.id);
        match ended {
            Ok(Outcome::Done) => Settle::Ended(jitter(self.tuning.resync)),
            Ok(Outcome::Gone) => Settle::Done,
            Ok(Outcome::Throttled) => Settle::Postponed(jitter(CROWDED)),
            Ok(Outcome::Waiting { reason, after }) => {
                tracing::debug!(%kind, %id, reason, ?after, "waiting");
                Settle::Later(after)
            }
            Err(error) if error.terminal => {
                tracing::warn!(%kind, %id, error = crate::chain(&error), "terminal error: waiting for a new spec");
                Settle::Ended(INVALID_REST)
            }
            Err(error) => {
                let backoff = self.tuning.backoff.after(work.failures.saturating_add(1));
                tracing::warn!(%kind, %id, ?backoff, error = crate::chain(&error), "reconcile failed");
                Settle::Failed { backoff }
            }
        }
    }

    /// Settles; while the database is away this is tried as long as the lease may be ours.
    async fn settle(self: &Arc<Self>, work: &Work, settle: Settle) {
        let pause = match settle {
            Settle::Done => None,
            Settle::Ended(pause) | Settle::Later(pause) => Some(pause),
            Settle::Postponed(pause) | Settle::Failed { backoff: pause } => Some(pause),
        };
        let mut settled = self.store.work().settle(work, settle).await;
        let begun = tokio::time::Instant::now();
        while matches!(&settled, Err(StoreError::Unavailable(_))) && begun.elapsed() < self.tuning.lease {
            tokio::time::sleep(DATABASE_REST).await;
            settled = self.store.work().settle(work, settle).await;
        }
        if let Err(error) = settled {
            tracing::warn!(kind = %work.kind, id = %work.id, error = crate::chain(&error), "complete work");
        }
        if let Some(pause) = pause.filter(|pause| *pause < LONGEST_SLEEP) {
            let engine = Arc::downgrade(self);
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                if let Some(engine) = engine.upgrade() {
                    engine.wake.notify_one();
                }
            });
        }
    }
}

/// How a reconcile ended, as a word for traces.
const fn outcome(ended: &Result<Outcome, ReconcileError>) -> &'static str {
    match ended {
        Ok(Outcome::Done) => "done",
        Ok(Outcome::Waiting { .. }) => "waiting",
        Ok(Outcome::Throttled) => "throttled",
        Ok(Outcome::Gone) => "gone",
        Err(error) if error.terminal => "terminal",
        Err(_) => "failed",
    }
}

fn panicked() -> ReconcileError {
    ReconcileError::new(ProblemCode::Defect, "Internal error (panic) in the provisioner.")
}

#[cfg(test)]
mod replica_tests;
#[cfg(test)]
mod tests;
