//! What can go wrong, sorted by what the caller can do about it.
//!
//! The database's own errors are looked at in one place, [`StoreError::from`]: what passes by itself (locked, gone, out of connections)
//! is [`StoreError::Unavailable`], the rest is [`StoreError::Database`].

use sea_orm::{DbErr, RuntimeErr};
use thiserror::Error;

use crate::rows::quota::QuotaUse;

/// A cause, kept for the log.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why the store did not do it.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no such row, or it is another organization's.
    #[error("{what} not found")]
    NotFound {
        /// The kind of row, lower case.
        what: &'static str,
    },
    /// Another row, or the state of this one, is in the way.
    #[error("{message}")]
    Conflict {
        /// The kind of row that is in the way, lower case.
        what: &'static str,
        /// For people: what is in the way.
        message: String,
    },
    /// Local machines that share the platform's kernel forbid it.
    #[error("{message}")]
    Restricted {
        /// For people: what is forbidden, and why.
        message: String,
    },
    /// As many as are allowed are there.
    #[error("{}", quota.refusal(*wanted))]
    Quota {
        /// Of what, how many there are, and how many there may be.
        quota: QuotaUse,
        /// How many more were asked for.
        wanted: u64,
    },
    /// The database is locked, gone or overloaded: the same may succeed later. (If it went away during a commit, nobody knows whether
    /// that was done; everything here may be asked for twice.)
    #[error("the database is not responding")]
    Unavailable(#[source] Source),
    /// A stored value cannot be read, or does not fit the key-encryption key.
    #[error("stored {what} is unreadable")]
    Corrupt {
        /// What cannot be read.
        what: &'static str,
    },
    /// The database refused in a way that trying again will not change.
    #[error("the database refused")]
    Database(#[source] Source),
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    pub(crate) const fn missing(what: &'static str) -> Self {
        Self::NotFound { what }
    }

    pub(crate) fn conflict(what: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict { what, message: message.into() }
    }

    pub(crate) fn unavailable(source: impl Into<Source>) -> Self {
        Self::Unavailable(source.into())
    }

    /// A unique index that refuses becomes a conflict with these words; anything else stays what it is.
    pub(crate) fn taken(error: DbErr, what: &'static str, message: impl FnOnce() -> String) -> Self {
        match error.sql_err() {
            Some(sea_orm::SqlErr::UniqueConstraintViolation(_)) => Self::Conflict { what, message: message() },
            _ => error.into(),
        }
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        if passes(&error) { Self::Unavailable(Box::new(error)) } else { Self::Database(Box::new(error)) }
    }
}

/// Whether the error is about the database's health and not about the statement.
fn passes(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) => true,
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => sqlx_passes(error),
        _ => false,
    }
}

/// The same for the driver's errors.
pub(crate) fn sqlx_passes(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code_passes(&code)),
        _ => false,
    }
}

/// PostgreSQL's codes have five characters (its manual's appendix A); SQLite's are numbers of at most four digits whose low byte is
/// the primary code (<https://www.sqlite.org/rescode.html>).
fn code_passes(code: &str) -> bool {
    const POSTGRES_CLASSES: [&str; 3] = ["08", "53", "58"];
    // serialization, deadlock, lock timeout, statement timeout, read-only (a standby), shutdowns, still starting
    const POSTGRES_CODES: [&str; 9] = ["40001", "40P01", "55P03", "57014", "25006", "57P01", "57P02", "57P03", "57P05"];
    // BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN
    const SQLITE_CODES: [u32; 6] = [5, 6, 8, 10, 13, 14];
    if code.len() == 5 {
        return POSTGRES_CODES.contains(&code) || POSTGRES_CLASSES.iter().any(|class| code.starts_with(class));
    }
    code.parse::<u32>().is_ok_and(|code| SQLITE_CODES.contains(&(code & 0xff)))
}

/// Why a store could not be opened.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The URL is of no known kind.
    #[error("the database URL cannot be used: begin it with `sqlite:///` and a path, or with `postgres://`")]
    Url,
    /// The file of the database cannot be made or looked at.
    #[error("the database file {path} cannot be opened")]
    File {
        /// Where it should be.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing answers, or it refuses us.
    #[error("the database cannot be reached")]
    Connect(#[source] Source),
    /// The server does not prove that it is the one the URL names.
    #[error(
        "the database's server is not trusted: name the authority of its certificate in the URL (`sslrootcert=/path`), or say with \
         `sslmode=` that it need not prove who it is"
    )]
    Unverified(#[source] Source),
    /// Somebody else has been migrating for too long.
    #[error(
        "another process has held the schema migration lock for a minute: wait for it or stop it, then start again"
    )]
    Locked,
    /// A step of the schema failed.
    #[error("schema migration failed")]
    Migrate(#[source] Source),
    /// The schema was written by a later version of this program.
    #[error("the database was used by a newer version of pilothouse: start that version or restore a backup")]
    Newer,
    /// The key-encryption key is not the one this database's secrets are under.
    #[error("the key-encryption key does not match this database: restore the matching key file (nothing was changed)")]
    WrongKey,
    /// Something else of the store.
    #[error("database initialization failed")]
    Prepare(#[source] StoreError),
}

impl From<StoreError> for ConnectError {
    fn from(error: StoreError) -> Self {
        Self::Prepare(error)
    }
}

/// Why a machine may not join. The messages are for the person who pasted the line.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// No such token, or a wrong secret.
    #[error("unknown join token: create a new join command")]
    Unknown,
    /// Its time is over.
    #[error("the join token has expired: create a new join command")]
    Expired,
    /// Somebody revoked it.
    #[error("the join token was revoked: create a new join command")]
    Revoked,
    /// As many machines as it allows have joined with it.
    #[error("the join token has no uses left: create a new join command")]
    UsedUp,
    /// It was for one machine, and another used it.
    #[error("the join token is bound to another machine: create a join command for this machine")]
    UsedElsewhere,
    /// The machine joined with it and was removed since.
    #[error("this machine was removed from its cluster: reset it, then create a new join command")]
    Removed,
    /// The cluster is going away.
    #[error("the cluster is being deleted")]
    ClusterDeleting,
    /// The pool is going away.
    #[error("the node pool is being deleted: create a join command for another pool")]
    PoolDeleting,
    /// Every /24 of the pod range belongs to a node.
    #[error("the pod CIDR of the cluster is exhausted: remove a node or create a cluster with a larger pod CIDR")]
    NoPodRangeLeft,
    /// As many nodes were removed from the cluster within a day as its API servers can refuse one by one.
    #[error(
        "too many nodes of the cluster were removed within the last 25 hours, and their certificates may still be valid: try again \
         later, or create another cluster"
    )]
    TooManyRemoved,
    /// The organization has as many nodes as it may.
    #[error("{}: remove a node, or ask the platform operator for a higher limit", .0.refusal(1))]
    Quota(QuotaUse),
    /// The store failed.
    #[error("the machine could not be registered")]
    Store(#[source] StoreError),
}

impl From<StoreError> for EnrollError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Quota { quota, .. } => Self::Quota(quota),
            error => Self::Store(error),
        }
    }
}

impl From<DbErr> for EnrollError {
    fn from(error: DbErr) -> Self {
        Self::Store(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted() {
        assert!(
            ["5", "261", "517", "6", "10", "13", "14", "08006", "57P01", "40P01", "55P03"]
                .iter()
                .all(|c| code_passes(c))
        );
        assert!(!["1", "11", "19", "1555", "2067", "26", "23505", "42P01", "XX000"].iter().any(|c| code_passes(c)));
    }
}
