//! The connection as this crate uses it: every statement has a deadline, every transaction collects its changes.
//!
//! A server that hangs or a network that swallows packets would otherwise hold a caller for ever; here the caller gets
//! [`StoreError::Unavailable`] and may come again. A SQLite file that was moved away or replaced is noticed before it is written:
//! SQLite itself would go on writing to a file that no longer has a name.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::{
    ActiveModelBehavior, ActiveModelTrait, ConnAcquireErr, ConnectionTrait, DatabaseConnection, DatabaseTransaction,
    DbBackend, DbErr, EntityTrait, ExecResult, IntoActiveModel, PrimaryKeyTrait, QueryResult, QuerySelect, RuntimeErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};

use crate::changes::{CHANNEL, Change, Hub};
use crate::error::StoreError;
use crate::store::audit_chain::{self, Entry, Pending};
use crate::store::idempotency::KeyLease;
use aws_lc_rs::hmac;
use uuid::Uuid;

/// Longer than the database's own limits (5 s), so that its own word comes first.
const DEADLINE: Duration = Duration::from_secs(12);

/// A SQLite file as it was when it was opened.
#[derive(Debug)]
pub(crate) struct FileGuard {
    path: PathBuf,
    identity: (u64, u64),
}

impl FileGuard {
    pub(crate) fn new(path: PathBuf) -> io::Result<Self> {
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }

    fn check(&self) -> io::Result<()> {
        if identity(&self.path)? == self.identity {
            return Ok(());
        }
        Err(io::Error::other("the database file was replaced: restart to use the new one"))
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// The pool of connections.
#[derive(Debug)]
pub(crate) struct Db {
    pub(crate) pool: DatabaseConnection,
    pub(crate) file: Option<FileGuard>,
}

impl Db {
    /// Before every write: whether the file is still the one that was opened.
    fn check(&self) -> Result<(), DbErr> {
        let lost = |error| DbErr::Conn(RuntimeErr::SqlxError(Arc::new(sqlx::Error::Io(error))));
        self.file.as_ref().map_or(Ok(()), FileGuard::check).map_err(lost)
    }

    /// Begins a transaction that may write. On SQLite it takes the write lock at once: one that read first could not.
    pub(crate) async fn begin(&self, hub: &Arc<Hub>, mode: &Mode, key: &hmac::Key) -> Result<Tx, StoreError> {
        self.check()?;
        let immediate = Some(SqliteTransactionMode::Immediate);
        let options = TransactionOptions { sqlite_transaction_mode: immediate, ..TransactionOptions::default() };
        let inner = within(self.pool.begin_with_options(options)).await?;
        let (audit, key) = (Mutex::default(), key.clone());
        Ok(Tx { inner, changes: Vec::new(), hub: Arc::clone(hub), mode: mode.clone(), audit, key })
    }
}

/// How the transactions of a store end.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mode {
    /// As they are told to.
    #[default]
    Plain,
    /// The same, and what they make is written beside the request's idempotency key.
    Leased(KeyLease),
    /// Dry run: everything is checked, nothing is changed and nothing is published.
    DryRun,
}

/// A statement's result, or the error of a pool that has no connection to give.
async fn within<T>(work: impl Future<Output = Result<T, DbErr>> + Send) -> Result<T, DbErr> {
    let late = |_| Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout));
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(late)
}

macro_rules! timed {
    ($name:ident, $field:ident) => {
        #[async_trait]
        impl ConnectionTrait for $name {
            fn get_database_backend(&self) -> DbBackend {
                self.$field.get_database_backend()
            }

            async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
                self.check()?;
                within(self.$field.execute_raw(statement)).await
            }

            async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
                within(self.$field.execute_unprepared(sql)).await
            }

            async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
                within(self.$field.query_one_raw(statement)).await
            }

            async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
                within(self.$field.query_all_raw(statement)).await
            }
        }
    };
}

timed!(Db, pool);
timed!(Tx, inner);

/// A transaction and the changes it will publish. Dropped without [`Tx::commit`], neither happens.
pub(crate) struct Tx {
    inner: DatabaseTransaction,
    changes: Vec<Change>,
    hub: Arc<Hub>,
    mode: Mode,
    /// What the audit log will say of it.
    audit: Mutex<Pending>,
    /// Signs the heads of the audit log.
    key: hmac::Key,
}

impl Tx {
    /// The file was looked at when the transaction began.
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "the counterpart of the pool's")]
    const fn check(&self) -> Result<(), DbErr> {
        Ok(())
    }

    /// A change to publish when this is committed; duplicates are dropped.
    pub(crate) fn publish(&mut self, change: Change) {
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }

    /// An entry of the audit log, written when this is committed.
    pub(crate) fn audit(&self, entry: Entry) {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner).entries.push(entry);
    }

    /// Begins the audit log of an organization that this transaction makes, when this is committed.
    pub(crate) fn begin_audit(&self, organization: Uuid) {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner).begun.push(organization);
    }

    /// The idempotency key this is done for.
    pub(crate) const fn claim(&self) -> Option<&KeyLease> {
        if let Mode::Leased(claim) = &self.mode { Some(claim) } else { None }
    }

    /// Commits and publishes the changes. A dry run is rolled back instead.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        if matches!(self.mode, Mode::DryRun) {
            return Ok(within(self.inner.rollback()).await?);
        }
        let pending = std::mem::take(&mut *self.audit.lock().unwrap_or_else(PoisonError::into_inner));
        audit_chain::append(&self, &self.key, pending).await?;
        let postgres = self.get_database_backend() == DbBackend::Postgres;
        if postgres {
            self.notify().await?;
        }
        within(self.inner.commit()).await?;
        if !postgres {
            self.changes.iter().for_each(|change| self.hub.publish(*change));
        }
        Ok(())
    }

    async fn notify(&self) -> Result<(), StoreError> {
        for change in &self.changes {
            let values = [CHANNEL.into(), change.payload().into()];
            let sql = "SELECT pg_notify($1, $2)";
            self.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, values)).await?;
        }
        Ok(())
    }

    /// The row with this id, locked until the end of the transaction.
    pub(crate) async fn lock<E>(
        &self,
        id: <E::PrimaryKey as PrimaryKeyTrait>::ValueType,
    ) -> Result<Option<E::Model>, StoreError>
    where
        E: EntityTrait,
        E::Model: Send + Sync,
    {
        Ok(E::find_by_id(id).lock_exclusive().one(self).await?)
    }

    /// Adds a row.
    pub(crate) async fn add<M, A>(&self, model: M) -> Result<(), DbErr>
    where
        M: IntoActiveModel<A>,
        A: ActiveModelTrait,
    {
        <A::Entity as EntityTrait>::insert(model.into_active_model()).exec_without_returning(self).await.map(|_| ())
    }

    /// Writes every column of a row that was locked and changed.
    pub(crate) async fn save<M, A>(&self, model: M) -> Result<(), StoreError>
    where
        M: IntoActiveModel<A>,
        A: ActiveModelTrait + ActiveModelBehavior + Send,
        <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
    {
        Ok(self.change(model).await?)
    }

    /// The same, for whoever has words for the database's errors.
    pub(crate) async fn change<M, A>(&self, model: M) -> Result<(), DbErr>
    where
        M: IntoActiveModel<A>,
        A: ActiveModelTrait + ActiveModelBehavior + Send,
        <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
    {
        model.into_active_model().reset_all().update(self).await.map(|_| ())
    }
}
