//! From the oldest schema to the newest, on rows of every step, in both databases.
//!
//! The rows stand in `tests/rows.sql`, in the SQL of their step's time: no step may lose them, and the store's methods read them at the end.

#[path = "../../tests/store/server.rs"]
#[allow(dead_code, reason = "shared with the store's stories")]
mod server;

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::hmac;
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, IntoActiveModel,
    SqlxPostgresConnector, SqlxSqliteConnector, Statement,
};
use sea_orm_migration::MigratorTrait;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tempfile::TempDir;
use tenant_controlplane::id::*;
use tenant_controlplane::pki::{Ca, ClusterPki, KeySource, PkiContext, PkiError};
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::status::{AccessRole, ClusterState, NodeState, PoolState};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Migrator;
use crate::codec;
use crate::entity::audit_head;
use crate::store::{audit_chain, users};
use crate::*;

/// The last step of the oldest schema: what the first platform that ran had.
const OLDEST: &str = "m0005_ledger";
const ROWS: &str = include_str!("tests/rows.sql");

/// What a step takes away or adds by intention: step, table, rows.
const INTENDED: [(&str, &str, i64); 6] = [
    ("m0009_platform", "organizations", 1),
    ("m0009_platform", "projects", 1),
    ("m0010_tombstones", "settings", -1),
    ("m0012_quotas", "idempotency_keys", -1),
    ("m0013_accounts", "sessions", -1),
    ("m0026_audit_numbers", "audit_heads", 1),
];

struct Keys;

impl KeySource for Keys {
    fn key_pair(&self) -> Result<rcgen::KeyPair, PkiError> {
        rcgen::KeyPair::generate().map_err(PkiError::Key)
    }

    fn bytes32(&self) -> Result<[u8; 32], PkiError> {
        Ok([3; 32])
    }
}

fn kek() -> Kek {
    Kek::from_bytes(&[7; 32])
}

const fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn cluster(number: u128) -> ClusterId {
    ClusterId::from_uuid(id(number))
}

/// A database that no step has touched.
struct Old {
    url: String,
    db: DatabaseConnection,
    pki: ClusterPki,
    authority: Ca,
    _dir: Option<TempDir>,
}

impl Old {
    async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("store.db");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true).foreign_keys(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        let url = format!("sqlite://{}", file.display());
        Self::new(url, SqlxSqliteConnector::from_sqlx_sqlite_pool(pool), Some(dir))
    }

    async fn postgres() -> Option<Self> {
        let url = server::empty_postgres().await?;
        let pool = PgPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
        Some(Self::new(url, SqlxPostgresConnector::from_sqlx_postgres_pool(pool), None))
    }

    fn new(url: String, db: DatabaseConnection, dir: Option<TempDir>) -> Self {
        let (spec, now) = (ClusterSpec::new(Default::default()), OffsetDateTime::now_utc());
        let context = PkiContext::new(cluster(60), "pilothouse.internal", &spec);
        let pki = ClusterPki::generate(&context, now, &Keys).unwrap();
        let authority = pki.client.current.clone();
        Self { url, db, pki, authority, _dir: dir }
    }

    fn is_postgres(&self) -> bool {
        self.db.get_database_backend() == DbBackend::Postgres
    }

    /// Carries out the next step, and gives its name.
    async fn step(&self) -> Option<String> {
        let pending = Migrator::get_pending_migrations(&self.db).await.unwrap();
        let name = pending.first()?.name().to_owned();
        Migrator::up(&self.db, Some(1)).await.unwrap();
        Some(name)
    }

    /// Puts in what belongs to a step.
    async fn put_rows(&self, step: &str) {
        let marked = format!("-- step {step}\n");
        let Some(from) = ROWS.find(&marked) else { return };
        let rest = &ROWS[from + marked.len()..];
        let sql = self.spell(&rest[..rest.find("-- step ").unwrap_or(rest.len())]);
        self.db.execute_unprepared(&sql).await.unwrap_or_else(|error| panic!("{step}: {error}"));
    }

    fn spell(&self, sql: &str) -> String {
        let mut sql = sql.to_owned();
        for number in 10..=150 {
            let (uuid, text) = (id(number), cluster(number).to_string());
            let literal = if self.is_postgres() { format!("'{uuid}'") } else { format!("X'{}'", uuid.simple()) };
            sql = sql.replace(&format!("@u{number:03}"), &literal).replace(&format!("@t{number:03}"), &text);
        }
        let authority = serde_json::to_vec(&self.authority).unwrap();
        let prepared = format!("kubeconfig_authority {}", KubeconfigId::from_uuid(id(102)));
        let pki = self.pki.to_secret_json().unwrap();
        let sql = sql.replace("@far", "4102444800000").replace("@now", &codec::millis(codec::now()).to_string());
        let sql = sql.replace("@pki", &self.sealed(&format!("cluster_pki {}", cluster(60)), pki.as_bytes()));
        let sql = sql.replace("@secret", &self.sealed("setting ca", b"key"));
        let sql = sql.replace("@authority", &self.sealed(&prepared, &authority));
        sql.replace("@answer", &self.sealed("idempotency_key answered", b"201"))
    }

    fn sealed(&self, owner: &str, plain: &[u8]) -> String {
        let hex = audit_chain::hex(&kek().seal(owner, plain).unwrap());
        if self.is_postgres() { format!("'\\x{hex}'") } else { format!("X'{hex}'") }
    }

    async fn tables(&self) -> BTreeSet<String> {
        let sql = if self.is_postgres() {
            "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'"
        } else {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        };
        let rows = self.db.query_all_raw(Statement::from_string(self.db.get_database_backend(), sql)).await.unwrap();
        let names = rows.iter().map(|row| row.try_get::<String>("", "name").unwrap());
        names.filter(|name| name != "seaql_migrations").collect()
    }

    /// How many rows each table has.
    async fn count(&self) -> BTreeMap<String, i64> {
        let mut counted = BTreeMap::new();
        for table in self.tables().await {
            let sql = format!("SELECT count(*) AS number FROM {table}");
            let statement = Statement::from_string(self.db.get_database_backend(), sql);
            let row = self.db.query_one_raw(statement).await.unwrap().unwrap();
            counted.insert(table, row.try_get("", "number").unwrap());
        }
        counted
    }

    async fn open(self) -> (Store, Self) {
        self.db.clone().close().await.unwrap();
        (Store::connect(&self.url, kek()).await.unwrap(), self)
    }
}

/// One step at a time: no step loses a row, no table has been forgotten, and all of it is read at the end.
async fn every_step_keeps_every_row(old: Old) {
    let mut before: BTreeMap<String, i64> = BTreeMap::new();
    while let Some(step) = old.step().await {
        let after = old.count().await;
        for (table, rows) in before {
            let meant = INTENDED.iter().filter(|(when, what, _)| (*when, *what) == (&*step, &*table));
            let meant: i64 = meant.map(|(_, _, rows)| rows).sum();
            assert_eq!(after.get(&table), Some(&(rows + meant)), "{step}: {table}");
        }
        old.put_rows(&step).await;
        before = old.count().await;
    }
    let empty: Vec<_> = before.iter().filter(|(_, rows)| **rows == 0).collect();
    assert!(empty.is_empty(), "tests/rows.sql has nothing for {empty:?}");
    let (store, old) = old.open().await;
    let tx = store.begin().await.unwrap();
    audit_chain::begin_all(&tx, store.mac_key().unwrap()).await.unwrap();
    tx.commit().await.unwrap();
    the_oldest_rows_are_read(&store, &old).await;
    later_rows_are_read(&store, &old).await;
}

/// As it happens to a platform that is updated: all steps at once, when the store is opened.
async fn the_oldest_database_is_opened(old: Old) {
    while let Some(step) = old.step().await {
        old.put_rows(&step).await;
        if step == OLDEST {
            break;
        }
    }
    let (store, old) = old.open().await;
    the_oldest_rows_are_read(&store, &old).await;
    let key = store.idempotency().begin(UserId::from_uuid(id(30)), "held", "f1").await.unwrap();
    assert!(matches!(key, KeyState::Taken { .. }), "tables of later steps are there, too: {key:?}");
}

/// The last step of before the audit log's entries were numbered.
const UNNUMBERED: &str = "m0023_gateways";

/// An audit log that is signed already is numbered from the update on.
async fn a_signed_log_is_numbered(old: Old) {
    while let Some(step) = old.step().await {
        old.put_rows(&step).await;
        if step == UNNUMBERED {
            break;
        }
    }
    let sealed = old.sealed("setting audit.key", b"a key");
    let sql = format!("INSERT INTO settings (key, sealed) VALUES ('audit.key', {sealed})");
    old.db.execute_unprepared(&sql).await.unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"a key");
    for head in audit_head::Entity::find().all(&old.db).await.unwrap() {
        let signed = audit_head::Model { mac: audit_chain::sign(&key, &head), ..head };
        signed.into_active_model().reset_all().update(&old.db).await.unwrap();
    }
    let (store, _old) = old.open().await;
    let acme = OrganizationId::from_uuid(id(10));
    let newest = store.audit().list(acme, Page::first(1)).await.unwrap();
    assert_eq!(newest[0].detail, "entries are numbered over all logs from here on");
    let report = store.audit().verify(None).await.unwrap();
    assert_eq!((report.faults, report.checkpoint.map(|it| it.number)), (vec![], Some(report.chains.cast_signed())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_log_is_numbered_on_sqlite() {
    a_signed_log_is_numbered(Old::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_log_is_numbered_on_postgres() {
    if let Some(old) = Old::postgres().await {
        a_signed_log_is_numbered(old).await;
    }
}

async fn the_oldest_rows_are_read(store: &Store, old: &Old) {
    people_are_read(store).await;
    clusters_are_read(store, old).await;
    nodes_are_read(store).await;
    access_is_read(store).await;
    the_ledger_is_read(store).await;
}

async fn people_are_read(store: &Store) {
    let (identity, acme) = (store.identity(), OrganizationId::from_uuid(id(10)));
    let names: Vec<_> = identity.all_organizations().await.unwrap().into_iter().map(|row| row.display_name).collect();
    assert_eq!(names, ["Acme", "Umbrella"]);
    assert_eq!(identity.first_organization().await.unwrap(), Some(acme));
    assert_eq!(identity.project(acme, "default").await.unwrap().id.uuid(), id(20));
    let ann = identity.user_by_email("ann@example.com").await.unwrap().unwrap();
    assert!(ann.id.uuid() == id(30) && ann.password_hash.is_some());
    assert!(!identity.setup_needed().await.unwrap());
    assert!(identity.user(UserId::from_uuid(id(31))).await.unwrap().unwrap().password_hash.is_none());
    let members = identity.members(acme).await.unwrap();
    let members: Vec<_> = members.into_iter().map(|(user, role)| (user.id.uuid(), role)).collect();
    assert_eq!(members, [(id(30), Role::Owner), (id(31), Role::Viewer)]);
    let tokens = identity.tokens(acme).await.unwrap();
    let seen: Vec<_> = tokens.iter().map(|token| (token.name.as_str(), token.role, token.last_used_at)).collect();
    let used = OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(2);
    assert_eq!(seen, [("ci", Role::Editor, Some(used)), ("look", Role::Viewer, None)]);
    assert_eq!(identity.session("before").await.unwrap(), None, "nothing is known of its last use");
    let hosts = store.hosts().list().await.unwrap();
    assert_eq!(hosts.iter().map(|host| (host.id.uuid(), &*host.name)).collect::<Vec<_>>(), [(id(50), "local")]);
}

async fn clusters_are_read(store: &Store, old: &Old) {
    let acme = OrganizationId::from_uuid(id(10));
    let rows = store.clusters().list(acme, None, Page::default()).await.unwrap();
    let [demo, broken] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((demo.id, &*demo.name.to_string(), demo.state), (cluster(60), "demo", ClusterState::Running));
    assert_eq!((demo.generation, demo.observed_generation, demo.endpoint.as_deref()), (3, 3, Some("10.0.0.9:6443")));
    assert_eq!((demo.spec.labels["team"].as_str(), demo.conditions[0].kind.as_str()), ("web", "Ready"));
    assert_eq!(demo.operation.map(|operation| operation.uuid()), Some(id(110)));
    assert_eq!((broken.state, broken.generation), (ClusterState::Error, 2));
    assert!(broken.deletion_requested_at.is_some() && broken.problem.is_some() && !broken.forced);
    let ids = [demo.user_id, broken.user_id].map(i64::from);
    assert_eq!(ids, [users::FIRST, users::FIRST + 1], "each has a user of its own");
    assert_eq!(store.pki().get(demo.id).await.unwrap().as_ref(), Some(&old.pki));
    let route = store.clusters().route(&demo.label()).await.unwrap().unwrap();
    assert_eq!(route.link_trust_pem.as_deref(), Some("link trust"));
}

async fn nodes_are_read(store: &Store) {
    let acme = OrganizationId::from_uuid(id(10));
    let pools = store.pools().list(acme, cluster(60)).await.unwrap();
    let seen: Vec<_> = pools.iter().map(|pool| (pool.id.uuid(), pool.kind, pool.count, pool.state)).collect();
    let byo = (id(71), PoolKind::Byo, 0, PoolState::Ready);
    assert_eq!(seen, [(id(70), PoolKind::Local, 2, PoolState::Scaling), byo]);
    assert!(store.pools().load(NodePoolId::from_uuid(id(72))).await.unwrap().deletion_requested_at.is_some());
    let nodes = store.nodes().list(acme, cluster(60)).await.unwrap();
    let [web, laptop] = nodes.as_slice() else { panic!("{nodes:?}") };
    assert_eq!((web.state, web.machine_fingerprint.as_deref()), (NodeState::Ready, Some("fingerprint")));
    assert_eq!((web.facts.os.as_str(), web.pod_cidr.to_string()), ("Debian 12", "10.244.0.0/24".to_owned()));
    assert!(web.link_connected && laptop.removed && laptop.deletion_requested_at.is_some());
}

async fn access_is_read(store: &Store) {
    let acme = OrganizationId::from_uuid(id(10));
    let tokens = store.join_tokens().list(acme, cluster(60)).await.unwrap();
    let seen: Vec<_> = tokens.iter().map(|token| (token.uses, token.max_uses, token.revoked_at.is_some())).collect();
    assert_eq!(seen, [(1, 5, false), (0, 1, true)]);
    assert_eq!(tokens[1].node.map(|node| node.uuid()), Some(id(80)));
    let laptop = store.kubeconfigs().load(KubeconfigId::from_uuid(id(100))).await.unwrap();
    assert_eq!((laptop.role, laptop.serial.as_deref(), laptop.bound), (AccessRole::Admin, Some("01"), true));
    let edit = store.kubeconfigs().get(acme, KubeconfigId::from_uuid(id(101))).await.unwrap();
    assert_eq!((edit.role, edit.created_by.as_str()), (AccessRole::Edit, "usr_gone"));
    assert!(edit.revoked_at.is_some());
    let unfit = store.pools().unfit_to_share_kernel().await.unwrap();
    assert_eq!(unfit, ["broken"], "its kubeconfig was given to somebody who is not known to be an admin");
}

async fn the_ledger_is_read(store: &Store) {
    let acme = OrganizationId::from_uuid(id(10));
    let operation = store.operations().load(OperationId::from_uuid(id(110))).await.unwrap();
    assert_eq!((operation.state, operation.version), (OperationState::Succeeded, 3));
    assert_eq!((operation.steps[0].state, operation.target), (StepState::Done, cluster(60).to_string()));
    let due = store.work().claim("test", std::time::Duration::from_secs(1), &[WorkKind::Cluster]).await.unwrap();
    let due = due.unwrap();
    assert_eq!((due.id, due.failures, due.fence), (id(60), 2, 5));
    assert!(store.work().next_due(&[WorkKind::NodePool, WorkKind::Node]).await.unwrap().is_some());
    let said = store.audit().list(acme, Page::default()).await.unwrap();
    let said: Vec<_> = said.iter().map(|entry| entry.action.as_str()).collect();
    assert!(said.ends_with(&["node.enroll", "cluster.create"]), "{said:?}");
    assert_eq!(store.audit().verify(None).await.unwrap().faults, []);
    assert_eq!(store.settings().get("domain").await.unwrap().as_deref(), Some("example.org"));
    assert_eq!(store.settings().get_secret("ca").await.unwrap().unwrap().as_str(), "key");
}

async fn later_rows_are_read(store: &Store, old: &Old) {
    let (acme, ann) = (OrganizationId::from_uuid(id(10)), UserId::from_uuid(id(30)));
    let sessions = store.identity().sessions(ann).await.unwrap();
    assert_eq!((sessions.len(), sessions[0].id.uuid(), &*sessions[0].user_agent), (1, id(140), "Firefox"));
    assert_eq!(store.identity().tokens(acme).await.unwrap()[0].addresses, ["192.0.2.0/24"]);
    let limits = store.quotas().list(acme.into()).await.unwrap();
    assert_eq!((limits[0].resource, limits[0].used, limits[0].limit), (Resource::Clusters, 2, 5));
    let key = store.idempotency().begin(ann, "held", "f1").await.unwrap();
    assert!(matches!(key, KeyState::InProgress), "{key:?}");
    let answered = store.idempotency().begin(ann, "answered", "f2").await.unwrap();
    assert!(matches!(answered, KeyState::Taken { .. }), "an answer that does not say whose it is was dropped");
    let web = store.nodes().load(NodeId::from_uuid(id(80))).await.unwrap();
    assert_eq!(web.config, ConfigVersion { generation: 9, digest: "abc".to_owned() });
    assert_eq!(web.registration.number, 1);
    assert_eq!(store.gateways().links(id(146)).await.unwrap(), [(cluster(60), web.id)]);
    let laptop = store.nodes().load(NodeId::from_uuid(id(81))).await.unwrap();
    assert!(laptop.forced && laptop.drain_ends_at.is_some());
    assert_eq!(store.nodes().removed_names(cluster(60)).await.unwrap(), ["web-gone"]);
    let gone = store.tombstones().get(NodeId::from_uuid(id(82))).await.unwrap().unwrap();
    assert!(gone.name == "web-gone" && gone.refused_at.is_some());
    let deleted = store.tombstones().cluster(&cluster(62).suffix()).await.unwrap().unwrap();
    assert_eq!(deleted.link_trust_pem, "old trust");
    assert_eq!(store.cluster_ports().all().await.unwrap(), [(cluster(60), 30001)]);
    let trusted = store.kubeconfigs().with_authority(cluster(60)).await.unwrap();
    assert_eq!(trusted.iter().map(|row| row.id.uuid()).collect::<Vec<_>>(), [id(100)]);
    let next = KubeconfigId::from_uuid(id(102));
    assert_eq!(store.kubeconfigs().prepared(cluster(60)).await.unwrap()[0].id, next);
    assert!(store.kubeconfigs().prepared_authority(next).await.unwrap() == Some(old.authority.clone()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_keeps_every_row_on_sqlite() {
    every_step_keeps_every_row(Old::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_keeps_every_row_on_postgres() {
    if let Some(old) = Old::postgres().await {
        every_step_keeps_every_row(old).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_database_is_opened_on_sqlite() {
    the_oldest_database_is_opened(Old::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_database_is_opened_on_postgres() {
    if let Some(old) = Old::postgres().await {
        the_oldest_database_is_opened(old).await;
    }
}

/// A process that is killed in the middle of a step leaves nothing of it: the next start begins the step anew.
#[test]
fn every_step_is_one_transaction() {
    for step in Migrator::migrations() {
        assert_eq!(step.use_transaction(), Some(true), "{}", step.name());
    }
}
