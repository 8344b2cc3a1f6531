//! Databases for the stories: a fresh file each, or a fresh database each on one server of this process's own.

use std::sync::Arc;
use std::time::Duration;

use migrations::*;
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;
use tenant_controlplane::id::*;
use tenant_controlplane::pki::{ClusterPki, KeySource, PkiContext, PkiError};
use tenant_controlplane::spec::ClusterSpec;
use time::OffsetDateTime;

pub use crate::server::*;

pub struct Fixture {
    pub store: Store,
    pub url: String,
    pub kek: Kek,
    pub dir: Option<TempDir>,
}

pub fn kek() -> Kek {
    Kek::from_bytes(&[7; 32])
}

pub async fn sqlite() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("store.db").display());
    open(url, Some(dir)).await
}

pub async fn postgres() -> Option<Fixture> {
    Some(open(empty_postgres().await?, None).await)
}

async fn open(url: String, dir: Option<TempDir>) -> Fixture {
    let store = Store::connect(&url, kek()).await.unwrap();
    Fixture { store, url, kek: kek(), dir }
}

impl Fixture {
    /// A second store on the same database, as another replica would open it.
    pub async fn replica(&self) -> Store {
        Store::connect(&self.url, self.kek.clone()).await.unwrap()
    }

    /// Does something to the database that the platform does not do.
    pub async fn meddle(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        if self.is_sqlite() {
            sqlx::SqliteConnection::connect(&self.url).await.unwrap().execute(sql).await.unwrap();
        } else {
            PgConnection::connect(&self.url).await.unwrap().execute(sql).await.unwrap();
        }
    }

    pub fn is_sqlite(&self) -> bool {
        self.dir.is_some()
    }

    /// A person who is nobody's member yet.
    pub async fn person(&self, email: &str) -> UserId {
        let id = UserId::from_uuid(uuid::Uuid::now_v7());
        let sql = "INSERT INTO users (id, email, display_name, created_at) VALUES ($1, $2, $2, 0)";
        if self.is_sqlite() {
            let mut database = sqlx::SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query(sql).bind(id.uuid()).bind(email).execute(&mut database).await.unwrap();
        } else {
            let mut database = PgConnection::connect(&self.url).await.unwrap();
            sqlx::query(sql).bind(id.uuid()).bind(email).execute(&mut database).await.unwrap();
        }
        id
    }

    /// A person with an organization of that name and its project.
    pub async fn tenant(&self, name: &str) -> Tenant {
        let identity = self.store.identity();
        let (user, _) = identity.ensure_admin().await.unwrap();
        let actor = Actor::User(user.id);
        let organization = identity.create_organization(user.id, name.parse().unwrap(), name, actor).await.unwrap().id;
        let project = identity.project(organization, "default").await.unwrap().id;
        Tenant { store: self.store.clone(), user: user.id, organization, project, actor }
    }
}

pub struct Tenant {
    pub store: Store,
    pub user: UserId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub actor: Actor,
}

impl Tenant {
    pub fn new_cluster(&self, name: &str) -> NewCluster {
        let (project, organization, actor) = (self.project, self.organization, self.actor);
        let spec = ClusterSpec::new(Default::default());
        NewCluster { project, organization, name: name.parse().unwrap(), spec, actor }
    }

    pub async fn cluster(&self, name: &str) -> Cluster {
        self.store.clusters().insert(self.new_cluster(name)).await.unwrap()
    }

    pub fn new_pool(&self, cluster: ClusterId, name: &str, count: u32) -> NewPool {
        let (organization, actor) = (self.organization, self.actor);
        NewPool {
            cluster,
            organization,
            name: name.parse().unwrap(),
            kind: PoolKind::Local,
            count,
            version: None,
            actor,
        }
    }

    pub async fn pool(&self, cluster: ClusterId, name: &str) -> NodePool {
        self.store.pools().insert(self.new_pool(cluster, name, 1)).await.unwrap()
    }

    pub fn new_join_token(&self, cluster: ClusterId) -> NewJoinToken {
        let (organization, actor) = (self.organization, self.actor);
        NewJoinToken { organization, cluster, pool: None, node: None, expires_at: hence(600), max_uses: 1, actor }
    }

    pub async fn join_token(&self, cluster: ClusterId) -> (JoinToken, Secret) {
        self.store.join_tokens().create(self.new_join_token(cluster)).await.unwrap()
    }

    pub fn new_kubeconfig(&self, cluster: ClusterId) -> NewKubeconfig {
        let (organization, actor) = (self.organization, self.actor);
        let role = tenant_controlplane::status::AccessRole::Admin;
        let kind = KubeconfigKind::File;
        NewKubeconfig { organization, cluster, name: "laptop".to_owned(), role, kind, expires_at: hence(600), actor }
    }

    pub async fn enroll(&self, secret: &Secret, fingerprint: &str) -> Result<Enrolled, EnrollError> {
        self.store.nodes().enroll(machine(secret.expose_secret(), fingerprint)).await
    }
}

pub fn machine<'a>(token_secret: &'a str, fingerprint: &'a str) -> Enrollment<'a> {
    let facts = NodeInfo { os: "Debian 12".to_owned(), addresses: vec!["192.0.2.7".to_owned()], ..Default::default() };
    Enrollment { token_secret, fingerprint, hostname: "Web_01.example.com", requested_name: "", facts }
}

/// A browser's session that ends in so many seconds.
pub fn new_session(user: UserId, hash: &str, seconds: i64) -> NewSession {
    NewSession {
        hash: hash.to_owned(),
        user,
        expires_at: hence(seconds),
        address: [192, 0, 2, 7].into(),
        network: "192.0.2.0/24".to_owned(),
        user_agent: "Firefox".to_owned(),
    }
}

pub fn hence(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::seconds(seconds)
}

pub fn is_missing<T: std::fmt::Debug>(result: Result<T, StoreError>) -> &'static str {
    match result {
        Err(StoreError::NotFound { what }) => what,
        other => panic!("expected not found, got {other:?}"),
    }
}

pub fn is_conflict<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Conflict { message, .. }) => message,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

struct Keys;

impl KeySource for Keys {
    fn key_pair(&self) -> Result<rcgen::KeyPair, PkiError> {
        rcgen::KeyPair::generate().map_err(PkiError::Key)
    }

    fn bytes32(&self) -> Result<[u8; 32], PkiError> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| PkiError::Random)?;
        Ok(bytes)
    }
}

pub fn pki(cluster: &Cluster) -> ClusterPki {
    let context = PkiContext::new(cluster.id, "pilothouse.internal", &cluster.spec);
    ClusterPki::generate(&context, OffsetDateTime::now_utc(), &Keys).unwrap()
}

/// All that is due now, claimed and settled.
pub async fn drain(store: &Store) -> Vec<Work> {
    let mut found = Vec::new();
    while let Some(work) = store.work().claim("drain", Duration::from_secs(60), WorkKind::ALL).await.unwrap() {
        store.work().settle(&work, Settle::Done).await.unwrap();
        found.push(work);
    }
    found
}

/// The result of something that becomes true soon.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("in time")
}

pub type Shared<T> = Arc<std::sync::Mutex<Vec<T>>>;
