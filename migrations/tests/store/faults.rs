//! What goes wrong with databases: many at once, wrong keys, newer schemas, locks, and being gone.

use std::time::Duration;

use migrations::*;
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};

use tenant_controlplane::id::KubeconfigId;

use crate::harness::*;

pub async fn three_may_migrate_at_once(fixture: Fixture) {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let url = match fixture.is_sqlite() {
            true => format!("sqlite://{}", dir.path().join(format!("{round}.db")).display()),
            false => empty_postgres().await.unwrap(),
        };
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let url = url.clone();
                tokio::spawn(async move { Store::connect(&url, kek()).await })
            })
            .collect();
        for task in tasks {
            let store = task.await.unwrap().unwrap();
            assert_eq!(store.hosts().list().await.unwrap().len(), 1);
            store.close().await;
        }
    }
}

pub async fn a_wrong_key_is_refused(fixture: Fixture) {
    fixture.store.settings().put_secret("ca", "key").await.unwrap();
    let other = Kek::from_bytes(&[8; 32]);
    let refused = Store::connect(&fixture.url, other).await;
    assert!(matches!(refused, Err(ConnectError::WrongKey)), "{refused:?}");
    let right = fixture.replica().await;
    assert_eq!(right.settings().get_secret("ca").await.unwrap().unwrap().as_str(), "key");
}

/// The rotation of the key-encryption key, cut off in the middle and begun again.
pub async fn everything_is_sealed_again_under_a_new_key(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let cluster = tenant.cluster("demo").await;
    let (old, new) = (fixture.kek.clone(), Kek::from_bytes(&[9; 32]));
    let made = pki(&cluster);
    fixture.store.pki().put_new(cluster.id, &made).await.unwrap();
    fixture.store.settings().put_secret("ca", "key").await.unwrap();
    let (next, authority) = (KubeconfigId::from_uuid(uuid::Uuid::now_v7()), made.client.current.clone());
    fixture.store.kubeconfigs().prepare(cluster.id, next, &authority).await.unwrap();
    let both = Store::connect(&fixture.url, new.clone().with_previous(&old)).await.unwrap();
    // One value is under the new key already, as after a kill.
    both.settings().put_secret("half", "way").await.unwrap();
    assert_eq!(both.pki().get(cluster.id).await.unwrap().unwrap(), made, "both keys open while they are rotated");
    assert!(matches!(Store::connect(&fixture.url, new.clone()).await, Err(ConnectError::WrongKey)));
    // The word that tells keys apart, the certificates, the next kubeconfig's authority, the setting.
    assert!(both.reseal().await.unwrap() >= 4);
    assert_eq!(both.reseal().await.unwrap(), 0, "once is enough");
    let after = Store::connect(&fixture.url, new).await.unwrap();
    assert_eq!(after.pki().get(cluster.id).await.unwrap().unwrap(), made);
    assert_eq!(after.kubeconfigs().prepared_authority(next).await.unwrap(), Some(authority));
    for (key, secret) in [("ca", "key"), ("half", "way")] {
        assert_eq!(after.settings().get_secret(key).await.unwrap().unwrap().as_str(), secret);
    }
    assert_eq!(after.reseal().await.unwrap(), 0);
    assert!(
        matches!(Store::connect(&fixture.url, old).await, Err(ConnectError::WrongKey)),
        "the old key opens nothing"
    );
}

pub async fn a_made_up_token_waits_for_no_writer(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let cluster = tenant.cluster("demo").await;
    let (_, secret) = tenant.join_token(cluster.id).await;
    let last = secret.expose_secret().len() - 4;
    let forged = format!("{}AAAA", &secret.expose_secret()[..last]);
    let refused = if fixture.is_sqlite() {
        let mut writer = SqliteConnection::connect(&fixture.url).await.unwrap();
        writer.execute("BEGIN IMMEDIATE").await.unwrap();
        tenant.enroll(&Secret::from(forged), "one").await
    } else {
        let mut writer = PgConnection::connect(&fixture.url).await.unwrap();
        writer.execute("BEGIN; LOCK TABLE clusters IN EXCLUSIVE MODE").await.unwrap();
        tenant.enroll(&Secret::from(forged), "one").await
    };
    assert!(matches!(refused, Err(EnrollError::Unknown)), "{refused:?}");
}

pub async fn a_newer_schema_is_refused(fixture: Fixture) {
    let sql = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_later', 1)";
    execute(&fixture, sql).await;
    let refused = Store::connect(&fixture.url, kek()).await;
    assert!(matches!(refused, Err(ConnectError::Newer)), "{refused:?}");
}

async fn execute(fixture: &Fixture, sql: &'static str) {
    if fixture.is_sqlite() {
        SqliteConnection::connect(&fixture.url).await.unwrap().execute(sql).await.unwrap();
    } else {
        PgConnection::connect(&fixture.url).await.unwrap().execute(sql).await.unwrap();
    }
}

/// Somebody else's transaction is in the way: said after five seconds, and nothing is wrong afterwards.
pub async fn a_locked_database_is_unavailable_and_then_works(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let refused = if fixture.is_sqlite() {
        let mut other = SqliteConnection::connect(&fixture.url).await.unwrap();
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        assert_eq!(fixture.store.clusters().list(tenant.organization, None, Page::default()).await.unwrap(), []);
        let refused = fixture.store.clusters().insert(tenant.new_cluster("demo")).await;
        other.execute("ROLLBACK").await.unwrap();
        refused
    } else {
        let mut other = PgConnection::connect(&fixture.url).await.unwrap();
        let mut lock = other.begin().await.unwrap();
        lock.execute("LOCK TABLE clusters IN EXCLUSIVE MODE").await.unwrap();
        let refused = fixture.store.clusters().insert(tenant.new_cluster("demo")).await;
        lock.rollback().await.unwrap();
        refused
    };
    let refused = refused.unwrap_err();
    assert!(refused.is_retryable(), "{refused:?}");
    let cluster = tenant.cluster("demo").await;
    assert_eq!(fixture.store.clusters().load(cluster.id).await.unwrap(), cluster);
    assert_eq!(drain(&fixture.store).await.len(), 1, "the refused one left nothing");
}

/// The file is moved away and comes back: no write goes to a file without a name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_gone_is_unavailable() {
    let fixture = sqlite().await;
    let tenant = fixture.tenant("acme").await;
    let path = fixture.dir.as_ref().unwrap().path().join("store.db");
    let away = path.with_extension("away");
    std::fs::rename(&path, &away).unwrap();
    assert!(fixture.store.clusters().insert(tenant.new_cluster("demo")).await.unwrap_err().is_retryable());
    assert!(fixture.store.settings().put("key", "value").await.unwrap_err().is_retryable());
    std::fs::write(&path, "another file").unwrap();
    assert!(fixture.store.clusters().insert(tenant.new_cluster("demo")).await.unwrap_err().is_retryable());
    std::fs::rename(&away, &path).unwrap();
    let cluster = tenant.cluster("demo").await;
    fixture.store.close().await;
    assert!(fixture.store.clusters().load(cluster.id).await.unwrap_err().is_retryable(), "closed");
    let again = fixture.replica().await;
    assert_eq!(again.clusters().load(cluster.id).await.unwrap(), cluster);
}

/// The server is stopped for a while: calls say so, listeners are told to look again, everything is still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_unavailable_and_comes_back() {
    if std::env::var("PH_TEST_PG").as_deref() == Ok("0") {
        return;
    }
    let mut server = Server::start();
    let url = server.database().await;
    let store = Store::connect(&url, kek()).await.unwrap();
    let fixture = Fixture { store, url, kek: kek(), dir: None };
    let tenant = fixture.tenant("acme").await;
    let cluster = tenant.cluster("demo").await;
    let mut changes = fixture.store.changes();
    let mut wake = fixture.store.work().changed();
    wake.mark_unchanged();
    server.toggle();
    let socket = server.folder.join(".s.PGSQL.5432");
    soon(async {
        while socket.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(fixture.store.ping().await.unwrap_err().is_retryable());
    assert!(fixture.store.clusters().insert(tenant.new_cluster("lost")).await.unwrap_err().is_retryable());
    assert!(fixture.store.work().claim("a", Duration::ZERO, WorkKind::ALL).await.unwrap_err().is_retryable());
    server.toggle();
    server.connect().await;
    assert_eq!(fixture.store.clusters().load(cluster.id).await.unwrap(), cluster);
    while soon(changes.recv()).await.unwrap().kind != ChangeKind::Resync {}
    soon(wake.changed()).await.unwrap();
    tenant.cluster("after").await;
    while soon(changes.recv()).await.unwrap().kind != ChangeKind::Cluster {}
    assert_eq!(drain(&fixture.store).await.len(), 2);
}
