//! Opening a database: a small pool with the settings each kind needs, and the schema brought up to date under a lock.
//!
//! sea-orm's migrator takes no lock of its own: three replicas that start on an empty database would trip over each other. Here all but
//! one wait: on PostgreSQL for an advisory lock, on SQLite for a lock on a file beside the database.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sea_orm::{DatabaseConnection, DbErr, SqlxPostgresConnector, SqlxSqliteConnector};
use sea_orm_migration::MigratorTrait;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::db::FileGuard;
use crate::error::ConnectError;
use crate::schema::{self, Migrator};

/// How long a connection may be waited for, and a lock inside the database.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long another process may migrate.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(60);
/// Connections close after this time without use: an idle platform is small.
const IDLE: Duration = Duration::from_secs(120);
/// SQLite has one writer; the others read.
const SQLITE_CONNECTIONS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 8;
/// "pilothouse" in a number: whoever takes this advisory lock migrates.
const MIGRATION_LOCK: i64 = 0x7069_6c6f_7468;

/// What a URL leads to.
pub(crate) enum Target {
    /// A file.
    Sqlite(PathBuf),
    /// A server.
    Postgres(Box<PgConnectOptions>),
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, ConnectError> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Sqlite(path)) } else { Err(ConnectError::Url) };
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(ConnectError::Url);
        }
        let limits =
            [("lock_timeout", "5s"), ("statement_timeout", "10s"), ("idle_in_transaction_session_timeout", "60s")];
        let options = PgConnectOptions::from_str(url).map_err(|_| ConnectError::Url)?;
        let options = verified(options, url, std::env::var_os("PGSSLMODE").is_some());
        let options = options.application_name("pilothouse").options(limits).disable_statement_logging();
        Ok(Self::Postgres(Box::new(options)))
    }
}

/// An open database whose schema is up to date.
pub(crate) struct Opened {
    pub(crate) pool: DatabaseConnection,
    /// Whether the audit log's chains were made just now, or numbered.
    pub(crate) chained: bool,
}

/// A server elsewhere must prove by its certificate that it is the one the URL names (`verify-full`, PostgreSQL's documentation 34.19),
/// unless the URL or `PGSSLMODE` says another mode. A socket of this machine and its loopback go over no network.
fn verified(options: PgConnectOptions, url: &str, told: bool) -> PgConnectOptions {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let says = |word: &str| query.split('&').any(|pair| pair.split('=').next() == Some(word));
    let host = options.get_host();
    let loopback = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let local = loopback || options.get_socket().is_some() || host.starts_with('/');
    if told || local || says("sslmode") || says("ssl-mode") { options } else { options.ssl_mode(PgSslMode::VerifyFull) }
}

/// Opens a file, which is made with mode 0600 unless it is there.
pub(crate) async fn sqlite(path: &Path) -> Result<(Opened, FileGuard), ConnectError> {
    let failed = |source| ConnectError::File { path: path.display().to_string(), source };
    create(path).map_err(failed)?;
    // Before the first connection already: turning a new file to WAL answers "locked" at once where two do it together.
    let lock = path.with_added_extension("lock");
    let held = tokio::task::spawn_blocking(move || lock_file(&lock)).await;
    let held = held.map_err(|error| ConnectError::Connect(error.into()))??;
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(false);
    let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    let options = options.busy_timeout(PATIENCE).foreign_keys(true).pragma("secure_delete", "ON");
    let options = options.pragma("cache_size", "-1024").disable_statement_logging();
    let pool = SqlitePoolOptions::new().max_connections(SQLITE_CONNECTIONS).min_connections(0);
    let pool = pool.acquire_timeout(PATIENCE * 2).idle_timeout(IDLE).connect_with(options).await.map_err(refused)?;
    let pool = SqlxSqliteConnector::from_sqlx_sqlite_pool(pool);
    let chained = migrate(&pool).await?;
    drop(held);
    FileGuard::new(path.to_owned()).map(|guard| (Opened { pool, chained }, guard)).map_err(failed)
}

/// Opens a server's database.
pub(crate) async fn postgres(options: PgConnectOptions) -> Result<Opened, ConnectError> {
    let pool = PgPoolOptions::new().max_connections(POSTGRES_CONNECTIONS).min_connections(0);
    let pool = pool.acquire_timeout(PATIENCE).idle_timeout(IDLE).connect_with(options).await.map_err(refused)?;
    let mut lock = pool.begin().await.map_err(refused)?;
    sqlx::query("SET LOCAL lock_timeout = '60s'").execute(&mut *lock).await.map_err(refused)?;
    sqlx::query("SET LOCAL statement_timeout = '60s'").execute(&mut *lock).await.map_err(refused)?;
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0").execute(&mut *lock).await.map_err(refused)?;
    let taken = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(MIGRATION_LOCK).execute(&mut *lock).await;
    taken.map_err(|error| if timed_out(&error) { ConnectError::Locked } else { refused(error) })?;
    let pool = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
    let migrated = migrate(&pool).await;
    lock.rollback().await.map_err(refused)?;
    migrated.map(|chained| Opened { pool, chained })
}

fn refused(error: sqlx::Error) -> ConnectError {
    match error {
        sqlx::Error::Tls(source) => ConnectError::Unverified(source),
        error => ConnectError::Connect(Box::new(error)),
    }
}

fn timed_out(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "55P03" || code == "57014")
}

/// An empty file only its owner can read; SQLite gives its companions (`-wal`, `-shm`) the same mode.
fn create(path: &Path) -> std::io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => fs::metadata(path).map(|_| ()),
        result => result.map(|_| ()),
    }
}

/// Waits for the lock; closing the file gives it back. Not on the database itself: closing any other handle of that file would drop
/// SQLite's own locks of this process.
fn lock_file(path: &Path) -> Result<File, ConnectError> {
    let failed = |source| ConnectError::File { path: path.display().to_string(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(failed)?;
    let end = std::time::Instant::now() + MIGRATION_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if std::time::Instant::now() > end => return Err(ConnectError::Locked),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Carries out the steps that are still to come; whether the audit log's chain was among them.
async fn migrate(pool: &DatabaseConnection) -> Result<bool, ConnectError> {
    let failed = |error| match error {
        // sea-orm's word for steps in the database that this program does not have.
        DbErr::Custom(_) => ConnectError::Newer,
        error => ConnectError::Migrate(Box::new(error)),
    };
    let pending = Migrator::get_pending_migrations(pool).await.map_err(failed)?;
    Migrator::up(pool, None).await.map_err(failed)?;
    Ok(pending.iter().any(|step| [schema::AUDIT_CHAIN, schema::AUDIT_NUMBERS].contains(&step.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_must_prove_who_it_is() {
        let mode = |url: &str, told| {
            let options = verified(PgConnectOptions::from_str(url).unwrap(), url, told);
            matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
        };
        assert!(mode("postgres://u:p@db.example.org/pilothouse", false));
        assert!(mode("postgresql://u@192.0.2.7:5433/x?application_name=sslmode", false));
        for url in [
            "postgres://u@db.example.org/x?sslmode=require",
            "postgres://u@127.0.0.1/x",
            "postgres://u@localhost/x",
            "postgres:///x?host=/run/postgresql",
        ] {
            assert!(!mode(url, false), "{url}");
        }
        assert!(!mode("postgres://db.example.org/x", true), "PGSSLMODE counts");
    }

    #[test]
    fn urls_lead_somewhere_or_are_refused() {
        assert!(
            matches!(Target::parse("sqlite:///var/lib/x/a b.db"), Ok(Target::Sqlite(path)) if path.ends_with("a b.db"))
        );
        assert!(matches!(Target::parse("postgres:///db?host=/run/postgresql"), Ok(Target::Postgres(_))));
        let wrong = ["", "sqlite::memory:", "sqlite://a.db", "mysql://x/y", "/var/lib/x.db", "postgres://h:port/db"];
        assert!(wrong.iter().all(|url| matches!(Target::parse(url), Err(ConnectError::Url))));
    }
}
