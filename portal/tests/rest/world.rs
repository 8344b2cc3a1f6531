//! One portal on one fresh store, with an organization, two people and one of everything.

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use migrations::{
    Actor, ClusterReport, ExposeSecret, Kek, Kubeconfig, NewCluster, NewJoinToken, NewKubeconfig, NewOwner, NewPool,
    NewSession, NewToken, Organization, PoolKind, Role, Secret, Store, User,
};
use portal::{AgentFiles, Capabilities, IssueError, Issuer, LocalMachines, PortalConfig, RequestLimits};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tempfile::TempDir;
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::status::{AccessRole, ClusterState, KubeconfigEndpoint};
use tenant_controlplane::version::KubernetesVersion;
use time::{Duration, OffsetDateTime};
use tower::ServiceExt;

/// Signs nothing, but says what was asked for; "signing" is the provisioner's business and tested there.
struct Echo(Store);

/// What stands for the agent's program, and its checksum.
pub const AGENT: &str = "the agent";
pub const AGENT_SHA256: &str = "c770ef7d03b6965625b626eb0871705a566d6a89a39bb670f0cccffbac97270d";

#[async_trait]
impl Issuer for Echo {
    async fn kubeconfig(&self, kubeconfig: &Kubeconfig, _: KubeconfigEndpoint) -> Result<String, IssueError> {
        self.0.kubeconfigs().certify(kubeconfig.id, "0a", "<authority>").await.unwrap();
        Ok(format!("apiVersion: v1\nkind: Config\n# {} {}\n", kubeconfig.cluster, kubeconfig.role))
    }
}

pub struct World {
    pub app: axum::Router,
    pub store: Store,
    pub config: PortalConfig,
    _dir: TempDir,
}

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// Asserts the shape every error has, and gives its code.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let problem: api_types::Problem = serde_json::from_str(&self.text).unwrap();
        assert_eq!(problem.status, self.status.as_u16());
        assert_eq!(problem.request_id, self.header("x-request-id"));
        assert!(!problem.remediation.is_empty() && problem.detail.ends_with('.'), "{problem:?}");
        problem.code
    }
}

impl World {
    /// With local machines for everybody: what trusted ones ask of whom is a story of its own (`local_machines.rs`).
    pub async fn new() -> Self {
        Self::with(LocalMachines::Isolated).await
    }

    pub async fn with(local: LocalMachines) -> Self {
        let plenty = RequestLimits { reads: 100_000, writes: 100_000, cluster_creates: 100_000 };
        Self::made(local, plenty).await
    }

    pub async fn limited(limits: RequestLimits) -> Self {
        Self::made(LocalMachines::Isolated, limits).await
    }

    async fn made(local: LocalMachines, limits: RequestLimits) -> Self {
        let dir = TempDir::new().unwrap();
        let kek = Kek::load_or_create(&dir.path().join("kek")).unwrap();
        let store = Store::connect(&format!("sqlite://{}", dir.path().join("db").display()), kek).await.unwrap();
        std::fs::write(dir.path().join("pilothouse-node"), AGENT).unwrap();
        let config = PortalConfig {
            store: store.clone(),
            public_url: "https://portal.test".into(),
            gateway_address: "192.0.2.7:8443".into(),
            domain: "pilothouse.internal".into(),
            platform_ca_pem: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            versions: KubernetesVersion::known().to_vec(),
            agent: AgentFiles {
                path: dir.path().join("pilothouse-node"),
                sha256: AGENT_SHA256.into(),
                signing_key: "ed25519:a".into(),
                machine: "x86_64".into(),
            },
            capabilities: Capabilities { local, dns: false, ports: false },
            limits,
            issuer: Arc::new(Echo(store.clone())),
        };
        Self { app: portal::app(config.clone()), store, config, _dir: dir }
    }

    /// Where the database is.
    pub fn folder(&self) -> &std::path::Path {
        self._dir.path()
    }

    /// Sends a request and reads nothing of its answer's body.
    pub async fn begin(&self, request: Request<Body>) -> axum::response::Response {
        self.app.clone().oneshot(request).await.unwrap()
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.begin(request).await;
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// Calls `/api/v1{path}` with a token (empty: none) and a JSON body (null: none).
    pub async fn call(&self, method: &str, path: &str, token: &str, body: Value) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            request = request.header("content-type", "application/json");
            Body::from(body.to_string())
        };
        self.send(request.body(body).unwrap()).await
    }

    /// As [`World::call`], with one more header.
    pub async fn call_with(&self, (name, value): (&str, &str), call: (&str, &str, &str, Value)) -> Answer {
        let (method, path, token, body) = call;
        let request = Request::builder().method(method).uri(format!("/api/v1{path}")).header(name, value);
        let request = request.header("authorization", format!("Bearer {token}"));
        self.send(request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap()).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.call("GET", path, token, Value::Null).await
    }

    /// Ana, owner of `default`, straight into the store.
    pub async fn ana(&self) -> (User, Organization) {
        let secret = self.store.identity().create_setup_token().await.unwrap();
        let ana = NewOwner { email: "ana@example.com".into(), display_name: "Ana".into(), password_hash: hash().await };
        self.store.identity().complete_setup(secret.expose_secret(), ana).await.unwrap()
    }

    pub async fn token(&self, user: &User, organization: &Organization, role: Role) -> String {
        let new = NewToken {
            organization: organization.id,
            user: user.id,
            name: role.to_string(),
            role,
            expires_at: None,
            actor: Actor::User(user.id),
        };
        self.store.identity().create_token(new).await.unwrap().1.expose_secret().to_owned()
    }

    /// What the provisioner would report of a cluster that answers.
    pub async fn runs(&self, cluster: ClusterId) {
        let report = ClusterReport {
            observed_generation: 1,
            state: ClusterState::Running,
            state_message: "Running".into(),
            conditions: Vec::new(),
            endpoint: Some("100.64.128.9:6443".into()),
            problem: None,
        };
        self.store.clusters().report(cluster, report).await.unwrap();
    }
}

/// Ana's password.
pub const PASSWORD: &str = "correct horse battery";

/// Its hash, made once: that takes a while.
async fn hash() -> Secret {
    static HASH: tokio::sync::OnceCell<String> = tokio::sync::OnceCell::const_new();
    let hash = HASH.get_or_init(async || {
        let made = portal::auth::password::Passwords::default().hash(PASSWORD.to_owned().into()).await.unwrap();
        made.expose_secret().to_owned()
    });
    Secret::from(hash.await.clone())
}

/// One of everything in Ana's organization: the ids by the names of the path parameters.
pub struct Things {
    pub ids: BTreeMap<&'static str, String>,
    pub cluster: ClusterId,
    pub ana: User,
    pub organization: Organization,
}

impl Things {
    pub async fn new(world: &World) -> Self {
        let (ana, organization) = world.ana().await;
        let (store, actor) = (&world.store, Actor::User(ana.id));
        let project = store.identity().projects(organization.id).await.unwrap().remove(0);
        let (name, spec) = ("demo".parse().unwrap(), ClusterSpec::new(KubernetesVersion::default()));
        let new = NewCluster { project: project.id, organization: organization.id, name, spec, actor };
        let cluster = store.clusters().insert(new).await.unwrap();
        world.runs(cluster.id).await;
        let (name, kind) = ("web".parse().unwrap(), PoolKind::Local);
        let new =
            NewPool { cluster: cluster.id, organization: organization.id, name, kind, count: 1, version: None, actor };
        let pool = store.pools().insert(new).await.unwrap();
        let node = store.nodes().insert_for_pool(pool.id).await.unwrap();
        let expires_at = OffsetDateTime::now_utc() + Duration::HOUR;
        let (organization_id, cluster_id) = (organization.id, cluster.id);
        let new = NewJoinToken {
            organization: organization_id,
            cluster: cluster_id,
            pool: None,
            node: None,
            expires_at,
            max_uses: 1,
            actor,
        };
        let (join_token, _) = store.join_tokens().create(new).await.unwrap();
        let new = NewKubeconfig {
            organization: organization_id,
            cluster: cluster_id,
            name: "laptop".into(),
            role: AccessRole::View,
            kind: migrations::KubeconfigKind::File,
            expires_at,
            actor,
        };
        let kubeconfig = store.kubeconfigs().insert(new).await.unwrap();
        world.token(&ana, &organization, Role::Viewer).await;
        let token = store.identity().tokens(organization.id).await.unwrap().remove(0);
        let session = NewSession {
            hash: "ab".repeat(32),
            user: ana.id,
            expires_at,
            address: [192, 0, 2, 7].into(),
            network: "192.0.2.0/24".into(),
            user_agent: "Firefox".into(),
        };
        let session = store.identity().put_session(session).await.unwrap();
        let ids = BTreeMap::from([
            ("org", organization.id.to_string()),
            ("prj", project.id.to_string()),
            ("cls", cluster.id.to_string()),
            ("np", pool.id.to_string()),
            ("nod", node.id.to_string()),
            ("jtk", join_token.id.to_string()),
            ("kcf", kubeconfig.id.to_string()),
            ("op", cluster.operation.unwrap().to_string()),
            ("tok", token.id.to_string()),
            ("ses", session.id.to_string()),
        ]);
        Self { ids, cluster: cluster.id, ana, organization }
    }

    /// A path template with the ids of these things.
    pub fn path(&self, template: &str) -> String {
        self.ids.iter().fold(template.to_owned(), |path, (name, id)| path.replace(&format!("{{{name}}}"), id))
    }
}
