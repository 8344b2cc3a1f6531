//! Idempotency keys: carried out once, answered alike, and no twin after a crash; and rehearsals, which change nothing.

use migrations::*;
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};

use crate::harness::*;

const CALLER: tenant_controlplane::id::UserId = tenant_controlplane::id::UserId::from_uuid(uuid::Uuid::from_u128(7));

async fn taken(store: &Store, id: &str) -> (KeyLease, Option<String>) {
    match store.idempotency().begin(CALLER, id, "body").await.unwrap() {
        KeyState::Taken { claim, made } => (claim, made),
        other => panic!("expected the key, got {other:?}"),
    }
}

async fn state(store: &Store, fingerprint: &str) -> KeyState {
    store.idempotency().begin(CALLER, "key", fingerprint).await.unwrap()
}

/// The clock cannot be turned, so the row is.
async fn long_ago(fixture: &Fixture, column: &str) {
    let sql = format!("UPDATE idempotency_keys SET {column} = 1");
    let sql = sqlx::AssertSqlSafe(sql);
    if fixture.is_sqlite() {
        SqliteConnection::connect(&fixture.url).await.unwrap().execute(sql).await.unwrap();
    } else {
        PgConnection::connect(&fixture.url).await.unwrap().execute(sql).await.unwrap();
    }
}

pub async fn a_key_is_carried_out_once(fixture: Fixture) {
    let store = &fixture.store;
    let (claim, made) = taken(store, "key").await;
    assert_eq!(made, None);
    assert!(matches!(state(store, "body").await, KeyState::InProgress));
    assert!(matches!(state(store, "other").await, KeyState::Reused));
    assert!(store.idempotency().renew(&claim).await.unwrap());
    store.idempotency().complete(&claim, b"a secret shown once").await.unwrap();
    let KeyState::Answered(answer) = state(store, "body").await else { panic!("no answer") };
    assert_eq!(answer.as_slice(), b"a secret shown once");
    assert!(matches!(state(store, "other").await, KeyState::Reused));
    assert_eq!(store.idempotency().prune().await.unwrap(), 0);
    long_ago(&fixture, "expires_at").await;
    assert_eq!(taken(store, "key").await.1, None, "after its time a key is free");
    long_ago(&fixture, "expires_at").await;
    assert_eq!(store.idempotency().prune().await.unwrap(), 1);
    let Some(dir) = &fixture.dir else { return };
    for file in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(!bytes.windows(8).any(|part| part == b"a secret"), "answers are sealed: {:?}", file.path());
    }
}

pub async fn of_several_at_once_one_has_the_key(fixture: Fixture) {
    let replica = fixture.replica().await;
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let store = if number % 2 == 0 { fixture.store.clone() } else { replica.clone() };
            tokio::spawn(async move { store.idempotency().begin(CALLER, "key", "body").await.unwrap() })
        })
        .collect();
    let mut holders = 0;
    for task in tasks {
        match task.await.unwrap() {
            KeyState::Taken { made: None, .. } => holders += 1,
            other => assert!(matches!(other, KeyState::InProgress), "{other:?}"),
        }
    }
    assert_eq!(holders, 1);
}

pub async fn what_was_made_is_known_after_a_crash(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    let (first, _) = taken(store, "key").await;
    let cluster = store.with_key_lease(first.clone()).clusters().insert(tenant.new_cluster("demo")).await.unwrap();
    assert!(matches!(state(store, "body").await, KeyState::InProgress), "the lease still runs");
    long_ago(&fixture, "lease_until").await;
    let (second, made) = taken(store, "key").await;
    assert_eq!(made, Some(cluster.id.to_string()));
    assert!(!store.idempotency().renew(&first).await.unwrap());
    store.idempotency().complete(&first, b"late").await.unwrap();
    let late = store.with_key_lease(first).clusters().insert(tenant.new_cluster("twin")).await;
    assert!(late.is_err_and(|error| error.is_retryable()));
    assert_eq!(store.clusters().all().await.unwrap().len(), 1, "who lost the key makes nothing");
    store.idempotency().release(&second).await.unwrap();
    assert_eq!(taken(store, "key").await.1, made, "given back, it still knows what is there");
}

pub async fn a_refused_wish_is_not_made(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    tenant.cluster("demo").await;
    let (claim, _) = taken(store, "key").await;
    is_conflict(store.with_key_lease(claim.clone()).clusters().insert(tenant.new_cluster("demo")).await);
    store.idempotency().release(&claim).await.unwrap();
    assert_eq!(taken(store, "key").await.1, None);
}

pub async fn a_rehearsal_checks_all_and_changes_nothing(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org) = (&fixture.store, tenant.organization);
    let cluster = tenant.cluster("demo").await;
    drain(store).await;
    let mut changes = store.changes();
    let before = store.audit().list(org, Page::default()).await.unwrap().len();
    let dry_run = store.dry_run();
    assert!(dry_run.is_dry_run() && !store.is_dry_run());
    is_conflict(dry_run.clusters().insert(tenant.new_cluster("demo")).await);
    dry_run.clusters().insert(tenant.new_cluster("new")).await.unwrap();
    dry_run.clusters().request_deletion(org, cluster.id, tenant.actor).await.unwrap();
    dry_run.join_tokens().create(tenant.new_join_token(cluster.id)).await.unwrap();
    assert_eq!(store.clusters().all().await.unwrap(), std::slice::from_ref(&cluster));
    assert!(store.pools().list(org, cluster.id).await.unwrap().is_empty(), "nor the pool the token would need");
    assert_eq!(store.audit().list(org, Page::default()).await.unwrap().len(), before);
    assert!(drain(store).await.is_empty());
    // PostgreSQL brings news by another way, so the cluster's own may come only now.
    assert!(!fixture.is_sqlite() || changes.try_recv().is_err(), "nobody is told");
    is_missing(
        store
            .dry_run()
            .clusters()
            .request_deletion(fixture.tenant("other").await.organization, cluster.id, tenant.actor)
            .await,
    );
}

/// A person who sends a new key with every request fills no table: the oldest answers go, and nobody else's.
pub async fn a_persons_keys_are_bounded(fixture: Fixture) {
    let store = &fixture.store;
    let other = tenant_controlplane::id::UserId::from_uuid(uuid::Uuid::from_u128(8));
    store.idempotency().begin(other, "theirs", "body").await.unwrap();
    let (first, _) = taken(store, "first").await;
    store.idempotency().complete(&first, b"answer").await.unwrap();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1999) INSERT INTO idempotency_keys \
               (id, fingerprint, holder, made, answer, lease_until, expires_at, caller) SELECT 'k' || i, 'body', holder, made, \
               answer, 1, expires_at, caller FROM n, idempotency_keys WHERE id = 'first'";
    run(&fixture, sql).await;
    assert!(matches!(state(store, "body").await, KeyState::Taken { .. }), "there is room for one more");
    let (mine, theirs) = (count(&fixture, 7).await, count(&fixture, 8).await);
    assert_eq!((mine, theirs), (1901, 1), "the oldest went, nobody else's");
}

async fn run(fixture: &Fixture, sql: &'static str) {
    if fixture.is_sqlite() {
        SqliteConnection::connect(&fixture.url).await.unwrap().execute(sql).await.unwrap();
    } else {
        PgConnection::connect(&fixture.url).await.unwrap().execute(sql).await.unwrap();
    }
}

async fn count(fixture: &Fixture, caller: u128) -> i64 {
    let (sql, caller) = ("SELECT count(*) FROM idempotency_keys WHERE caller = $1", uuid::Uuid::from_u128(caller));
    if fixture.is_sqlite() {
        let mut database = SqliteConnection::connect(&fixture.url).await.unwrap();
        sqlx::query_scalar(sql).bind(caller).fetch_one(&mut database).await.unwrap()
    } else {
        let mut database = PgConnection::connect(&fixture.url).await.unwrap();
        sqlx::query_scalar(sql).bind(caller).fetch_one(&mut database).await.unwrap()
    }
}
