//! The work table: ids to look at again, when, and who holds the lease.
//!
//! A lease is a row, not a lock: it is taken in a short transaction, renewed while the work goes on, and ends by itself when its holder
//! dies. Whoever makes an id due while somebody works on it is not lost: the count `wanted` tells the settling worker, and the id is due
//! again at once. The count `fence` tells a worker whose lease ran out from the one that has it now.
//!
//! `traceparent` carries the trace of whoever made an id due to the worker, and stays until what was requested has ended.

use std::time::Duration;

use sea_orm::sea_query::{Expr, LockBehavior, LockType};
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Statement};
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use super::Store;
use crate::changes::{Change, ChangeKind};
use crate::codec;
use crate::db::Tx;
use crate::entity::work;
use crate::error::StoreError;
use crate::rows::work::{Backlog, Settle, Work, WorkKind};

/// Of several traces each is kept once, and no more than four: a context has 55 characters, of which 32 from the fourth on name its trace.
const MAKE_DUE: &str = "INSERT INTO work (kind, id, due_at, lease_until, lease_owner, failures, fence, wanted, traceparent) \
     VALUES ($1, $2, $3, NULL, '', 0, 0, 1, $4) \
     ON CONFLICT (kind, id) DO UPDATE SET wanted = work.wanted + 1, \
     due_at = CASE WHEN excluded.due_at < work.due_at THEN excluded.due_at ELSE work.due_at END, \
     traceparent = CASE WHEN excluded.traceparent IS NULL THEN work.traceparent \
     WHEN work.traceparent IS NULL THEN excluded.traceparent \
     WHEN length(work.traceparent) > 200 THEN work.traceparent \
     WHEN work.traceparent LIKE '%-' || substr(excluded.traceparent, 4, 32) || '-%' THEN work.traceparent \
     ELSE work.traceparent || ' ' || excluded.traceparent END";

/// Work that is due; see [`Store::work`].
#[derive(Clone, Copy)]
pub struct WorkQueue<'a>(pub(super) &'a Store);

impl WorkQueue<'_> {
    /// Makes an id due now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn due(self, kind: WorkKind, id: Uuid) -> Result<(), StoreError> {
        self.due_at(kind, id, codec::now()).await
    }

    /// Makes an id due at a time; an earlier one that is there already stays.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn due_at(self, kind: WorkKind, id: Uuid, at: OffsetDateTime) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        make_due_at(&mut tx, kind, id, codec::millis(at)).await?;
        tx.commit().await
    }

    /// Takes a lease on what has been due longest and nobody holds; `None` when there is nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn claim(self, owner: &str, lease: Duration, kinds: &[WorkKind]) -> Result<Option<Work>, StoreError> {
        let now = codec::now();
        let free = free(kinds, codec::millis(now)).order_by_asc(work::Column::DueAt).limit(1);
        // Looking is free, a transaction that may write is not.
        if free.clone().one(self.0.db()).await?.is_none() {
            return Ok(None);
        }
        let tx = self.0.begin().await?;
        let locked = free.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
        let Some(mut row) = locked.one(&tx).await? else { return Ok(None) };
        row.lease_until = Some(codec::millis(now + lease));
        row.lease_owner = owner.to_owned();
        row.fence += 1;
        tx.save(row.clone()).await?;
        tx.commit().await?;
        Work::try_from(row).map(Some)
    }

    /// Makes the lease last from now on again; false when it was lost and the work must stop.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn renew(self, held: &Work, lease: Duration) -> Result<bool, StoreError> {
        let until = codec::millis(codec::now() + lease);
        let renewed = work::Entity::update_many().col_expr(work::Column::LeaseUntil, Expr::value(until));
        Ok(renewed.filter(same_lease(held)).exec(self.0.db()).await?.rows_affected == 1)
    }

    /// Ends the lease with what came of it. Whoever was made due meanwhile is due at once; a lost lease changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn settle(self, held: &Work, outcome: Settle) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        let row = work::Entity::find().filter(same_lease(held)).lock_exclusive().one(&tx).await?;
        let Some(mut row) = row else { return Ok(()) };
        let wanted_again = row.wanted != held.wanted;
        if outcome == Settle::Done && !wanted_again {
            work::Entity::delete_many().filter(same_lease(held)).exec(&tx).await?;
            return tx.commit().await;
        }
        let now = codec::now();
        let (wait, failures) = verdict(outcome, row.failures);
        row.due_at = codec::millis(if wanted_again { now } else { now + wait });
        (row.failures, row.lease_until, row.lease_owner) = (failures, None, String::new());
        if matches!(outcome, Settle::Done | Settle::Ended(_)) {
            row.traceparent = newer(row.traceparent, held.traceparent.as_deref());
        }
        tx.save(row).await?;
        if wanted_again {
            tx.publish(Change::of(ChangeKind::Work, held.id));
        }
        tx.commit().await
    }

    /// Drops the leases of a holder that is known to be gone, and gives their number: nobody has to wait for them to run out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn release(self, owner: &str) -> Result<u64, StoreError> {
        self.release_where(Condition::all().add(work::Column::LeaseOwner.eq(owner))).await
    }

    /// The same for every holder whose name begins with `prefix`, but for the one that is `alive`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn release_ended(self, prefix: &str, alive: &str) -> Result<u64, StoreError> {
        let owners = Condition::all().add(work::Column::LeaseOwner.starts_with(prefix));
        self.release_where(owners.add(work::Column::LeaseOwner.ne(alive))).await
    }

    async fn release_where(self, owners: Condition) -> Result<u64, StoreError> {
        let mut tx = self.0.begin().await?;
        let dropped = work::Entity::update_many().col_expr(work::Column::LeaseUntil, Expr::value(None::<i64>));
        let dropped = dropped.filter(owners).filter(work::Column::LeaseUntil.is_not_null());
        let count = dropped.exec(&tx).await?.rows_affected;
        tx.publish(Change::of(ChangeKind::Work, Uuid::nil()));
        tx.commit().await.map(|()| count)
    }

    /// When the next id is due or its lease ends, whichever is later; `None` when nothing is planned.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn next_due(self, kinds: &[WorkKind]) -> Result<Option<OffsetDateTime>, StoreError> {
        let kinds = kinds.iter().map(ToString::to_string);
        let rows = work::Entity::find().filter(work::Column::Kind.is_in(kinds)).all(self.0.db()).await?;
        let next = rows.iter().map(|row| row.due_at.max(row.lease_until.unwrap_or(row.due_at))).min();
        codec::maybe_time("work time", next)
    }

    /// The trace contexts of the requests that wait for an id, as [`Work::traceparent`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn traceparent(self, kind: WorkKind, id: Uuid) -> Result<Option<String>, StoreError> {
        let row = work::Entity::find_by_id((kind.to_string(), id)).one(self.0.db()).await?;
        Ok(row.and_then(|row| row.traceparent))
    }

    /// What of each kind is due and held by nobody.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn backlog(self) -> Result<Vec<Backlog>, StoreError> {
        let count = free(WorkKind::ALL, codec::millis(codec::now())).select_only().column(work::Column::Kind);
        let count = count.column_as(work::Column::Id.count(), "due").column_as(work::Column::DueAt.min(), "oldest");
        let counted: Vec<(String, i64, i64)> = count.group_by(work::Column::Kind).into_tuple().all(self.0.db()).await?;
        let backlog = WorkKind::ALL.iter().map(|kind| {
            let found = counted.iter().find(|(found, ..)| *found == kind.to_string());
            let oldest = codec::maybe_time("work time", found.map(|(.., oldest)| *oldest))?;
            Ok(Backlog { kind: *kind, due: found.map_or(0, |(_, due, _)| due.unsigned_abs()), oldest })
        });
        backlog.collect()
    }

    /// A counter that moves when something became due. It may move without need; it may stand still when changes were lost, so look by
    /// the clock as well.
    pub fn changed(self) -> watch::Receiver<u64> {
        self.0.hub().work()
    }
}

/// How long to wait and how many failures that makes.
const fn verdict(outcome: Settle, failures: i64) -> (Duration, i64) {
    match outcome {
        Settle::Done => (Duration::ZERO, 0),
        Settle::Ended(wait) | Settle::Later(wait) => (wait, 0),
        Settle::Postponed(wait) => (wait, failures),
        Settle::Failed { backoff } => (backoff, failures + 1),
    }
}

/// The traces that came since a lease was taken.
fn newer(all: Option<String>, held: Option<&str>) -> Option<String> {
    let all = all?;
    let newer = held.and_then(|held| all.strip_prefix(held)).unwrap_or(&all).trim_start();
    (!newer.is_empty()).then(|| newer.to_owned())
}

fn free(kinds: &[WorkKind], now: i64) -> sea_orm::Select<work::Entity> {
    let unheld = Condition::any().add(work::Column::LeaseUntil.is_null()).add(work::Column::LeaseUntil.lte(now));
    let query = work::Entity::find().filter(work::Column::DueAt.lte(now)).filter(unheld);
    query.filter(work::Column::Kind.is_in(kinds.iter().map(ToString::to_string)))
}

fn same_lease(held: &Work) -> Condition {
    Condition::all()
        .add(work::Column::Kind.eq(held.kind.to_string()))
        .add(work::Column::Id.eq(held.id))
        .add(work::Column::Fence.eq(held.fence))
        .add(work::Column::LeaseOwner.eq(held.lease_owner.as_str()))
}

/// Makes an id due now, within a transaction.
pub(super) async fn make_due(tx: &mut Tx, kind: WorkKind, id: Uuid) -> Result<(), StoreError> {
    make_due_at(tx, kind, id, codec::millis(codec::now())).await
}

async fn make_due_at(tx: &mut Tx, kind: WorkKind, id: Uuid, at: i64) -> Result<(), StoreError> {
    let values = [kind.to_string().into(), id.into(), at.into(), telemetry::traceparent().into()];
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), MAKE_DUE, values)).await?;
    tx.publish(Change::of(ChangeKind::Work, id));
    Ok(())
}

/// Forgets ids that are no more.
pub(super) async fn forget(tx: &Tx, kind: WorkKind, ids: Vec<Uuid>) -> Result<(), StoreError> {
    let rows = work::Entity::delete_many().filter(work::Column::Kind.eq(kind.to_string()));
    rows.filter(work::Column::Id.is_in(ids)).exec(tx).await?;
    Ok(())
}
