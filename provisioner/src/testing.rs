//! A small world for tests: a real store on a SQLite file, a scripted host and tenant, machines without machines.

#[path = "../../migrations/tests/store/postgres.rs"]
#[allow(dead_code, reason = "shared with the store's stories")]
mod postgres;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use cloud_providers::memory::Memory;
use migrations::{
    Actor, Cluster, Enrollment, Kek, Kubeconfig, KubeconfigKind, NewCluster, NewJoinToken, NewKubeconfig, NewOwner,
    NewPool, NodeInfo, NodePool, Organization, PoolKind, Project, Store,
};
use serde_json::json;
use tenant_controlplane::id::{ClusterId, NodeId};
use tenant_controlplane::pki::{PkiContext, generate_kubeconfig_authority};
use tenant_controlplane::render::{CLUSTER_LABEL, Images, MANAGED_BY_LABEL, Placement, PullPolicy};
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::status::AccessRole;
use tenant_controlplane::version::KubernetesVersion;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{InstallationInfo, Release, Tuning};
use crate::context::{Context, Dependencies};
use crate::engine::{Outcome, Reconcile};
use crate::error::ReconcileError;
use crate::host::Component;
use crate::host::testing::{FaultInjector, Scripted, ScriptedConnector};
use crate::host::{Connector, FIELD_MANAGER, Kubernetes, ObjectKey, PodInfo, WatchEvent};
use crate::keys::SystemKeys;

pub use postgres::{Server, is_wanted};

pub struct World {
    pub store: Store,
    pub organization: Organization,
    pub project: Project,
    pub faults: Arc<FaultInjector>,
    pub host: Arc<Scripted>,
    pub tenant: Arc<Scripted>,
    pub machines: Arc<Memory>,
    pub ctx: Arc<Context>,
    pub cancel_at: CancelAt,
    pub connector: Arc<ScriptedConnector>,
    /// Whether the host's CPUs are idle.
    pub host_idle: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

/// Ends one reconcile in the middle, as a lost lease or a dying process does.
#[derive(Default)]
pub struct CancelAt {
    looks: AtomicUsize,
    falls_at: Mutex<Option<usize>>,
}

impl CancelAt {
    /// Drops whatever reconcile is looked at for the `n`th time, counted over all of them, instead of looking.
    pub fn set(&self, n: usize) {
        *self.falls_at.lock().unwrap() = Some(n);
    }

    /// How often any reconcile was looked at: once more than it waited for something.
    pub fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }

    /// What became of a run; none when it was dropped.
    pub async fn over<T>(&self, run: impl Future<Output = T>) -> Option<T> {
        let mut run = std::pin::pin!(run);
        std::future::poll_fn(|context| {
            let look = self.looks.fetch_add(1, Ordering::SeqCst);
            let falls = *self.falls_at.lock().unwrap() == Some(look);
            if falls { Poll::Ready(None) } else { run.as_mut().poll(context).map(Some) }
        })
        .await
    }
}

/// Short waits.
pub fn tuning() -> Tuning {
    Tuning {
        reconcile_timeout: Duration::from_millis(50),
        probe_every: Duration::from_millis(2),
        probe_grace: Duration::ZERO,
        standby_cooldown: Duration::ZERO,
        reset_timeout: Duration::from_millis(1500),
        ..Tuning::default()
    }
}

pub fn installation() -> InstallationInfo {
    let image = |name: &str| format!("pilothouse.internal/{name}:1");
    let images = Images {
        apiserver: image("kube-apiserver"),
        controller_manager: image("kube-controller-manager"),
        scheduler: image("kube-scheduler"),
        etcd: image("etcd"),
    };
    let release = Release { images: images.clone(), coredns_image: image("coredns"), loaded: true };
    let (_, releases) = watch::channel([(KubernetesVersion::default(), release)].into());
    let placement = Placement {
        domain: "pilothouse.internal".to_owned(),
        gateway_ip: Ipv4Addr::new(100, 64, 192, 1).into(),
        gateway_port: 8443,
        advertised: "192.0.2.1:8443".to_owned(),
        platform_ca_pem: "CA".to_owned(),
        storage_class: None,
        images,
        pull_policy: PullPolicy::Never,
        fsync: true,
        etcd_ip: None,
    };
    InstallationInfo {
        domain: placement.domain.clone(),
        placement,
        gateway: SocketAddr::from(([127, 0, 0, 1], 8443)),
        machine_gateway: "192.0.2.1:8443".to_owned(),
        platform_ca_pem: "CA".to_owned(),
        signing_key: "ed25519:a".to_owned(),
        direct: Vec::new(),
        portal_url: "https://192.0.2.1:8443".to_owned(),
        releases,
    }
}

pub async fn store(dir: &tempfile::TempDir) -> Store {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kek = Kek::load_or_create(&dir.path().join("kek")).unwrap();
    Store::connect(&format!("sqlite://{}/db.sqlite", dir.path().display()), kek).await.unwrap()
}

impl World {
    pub async fn new() -> Self {
        Self::tuned(|_| {}).await
    }

    pub async fn tuned(change: impl FnOnce(&mut Tuning)) -> Self {
        let mut tuning = tuning();
        change(&mut tuning);
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let token = store.identity().create_setup_token().await.unwrap();
        let owner =
            NewOwner { email: "a@example.com".into(), display_name: "A".into(), password_hash: "x".to_owned().into() };
        let token = migrations::ExposeSecret::expose_secret(&token).to_owned();
        let (_, organization) = store.identity().complete_setup(&token, owner).await.unwrap();
        let project = store.identity().projects(organization.id).await.unwrap().remove(0);
        let faults = Arc::new(FaultInjector::default());
        let (host, tenant) = (Scripted::new(Arc::clone(&faults)), Scripted::new(Arc::clone(&faults)));
        let connector = Arc::new(ScriptedConnector::new(Arc::clone(&tenant), Arc::clone(&host)));
        let machines = Arc::new(Memory::new());
        let host_idle = watch::Sender::new(true);
        let ctx = Context::new(Dependencies {
            store: store.clone(),
            host: Arc::clone(&host) as Arc<dyn Kubernetes>,
            connector: Arc::clone(&connector) as Arc<dyn Connector>,
            providers: vec![Arc::clone(&machines) as _],
            keys: Arc::new(SystemKeys),
            installation: Arc::new(installation()),
            tuning,
            host_idle: host_idle.subscribe(),
            ending: CancellationToken::new(),
        });
        let cancel_at = CancelAt::default();
        Self {
            host_idle,
            store,
            organization,
            project,
            faults,
            host,
            tenant,
            machines,
            ctx,
            cancel_at,
            connector,
            _dir: dir,
        }
    }

    pub async fn cluster(&self, name: &str) -> Cluster {
        let spec = ClusterSpec::new(KubernetesVersion::default());
        let (project, organization) = (self.project.id, self.organization.id);
        let new = NewCluster { project, organization, name: name.parse().unwrap(), spec, actor: Actor::System };
        self.store.clusters().insert(new).await.unwrap()
    }

    pub async fn pool(&self, cluster: ClusterId, kind: PoolKind, count: u32) -> NodePool {
        let (organization, name) = (self.organization.id, "web".parse().unwrap());
        self.store
            .pools()
            .insert(NewPool { cluster, organization, name, kind, count, version: None, actor: Actor::System })
            .await
            .unwrap()
    }

    pub async fn kubeconfig(&self, cluster: ClusterId, role: AccessRole) -> Kubeconfig {
        let new = NewKubeconfig {
            organization: self.organization.id,
            cluster,
            name: "mine".to_owned(),
            role,
            kind: KubeconfigKind::File,
            expires_at: OffsetDateTime::now_utc() + time::Duration::hours(1),
            actor: Actor::System,
        };
        let row = self.store.kubeconfigs().insert(new).await.unwrap();
        let prepared = self.store.kubeconfigs().prepared_authority(row.id).await.unwrap();
        let made = || generate_kubeconfig_authority(row.id, OffsetDateTime::now_utc(), &SystemKeys).unwrap();
        let authority = prepared.unwrap_or_else(made);
        self.store.kubeconfigs().certify(row.id, "0a", &authority.cert_pem).await.unwrap();
        self.store.kubeconfigs().load(row.id).await.unwrap()
    }

    /// The control plane's certificates were made so many days ago.
    pub async fn age(&self, cluster: &Cluster, days: i64) {
        let known = self.store.pki().get(cluster.id).await.unwrap().unwrap();
        let context = PkiContext::new(cluster.id, "pilothouse.internal", &cluster.spec);
        let (mut old, made) = (known.clone(), OffsetDateTime::now_utc() - time::Duration::days(days));
        old.renew_leaves(&context, made, &SystemKeys).unwrap();
        self.store.pki().replace(cluster.id, &known, &old).await.unwrap();
        self.due(cluster).await;
    }

    /// An object in the host that an older platform applied for the cluster.
    pub fn leave_behind(&self, cluster: &Cluster, key: &ObjectKey) {
        let labels = json!({MANAGED_BY_LABEL: "pilothouse", CLUSTER_LABEL: cluster.id.to_string()});
        self.host.put(key.clone(), &labels, FIELD_MANAGER);
    }

    /// A machine of a user's own joins.
    pub async fn join(&self, cluster: &Cluster) -> NodeId {
        let new = NewJoinToken {
            organization: self.organization.id,
            cluster: cluster.id,
            pool: None,
            node: None,
            expires_at: OffsetDateTime::now_utc() + time::Duration::hours(1),
            max_uses: 1,
            actor: Actor::System,
        };
        let (_, secret) = self.store.join_tokens().create(new).await.unwrap();
        let token_secret = migrations::ExposeSecret::expose_secret(&secret);
        let (fingerprint, hostname, facts) = ("m1", "own-1", NodeInfo::default());
        let enrollment = Enrollment { token_secret, fingerprint, hostname, requested_name: "", facts };
        self.store.nodes().enroll(enrollment).await.unwrap().node.id
    }

    /// The cluster is to be looked at now.
    pub async fn due(&self, cluster: &Cluster) {
        self.store.work().due(migrations::WorkKind::Cluster, cluster.id.uuid()).await.unwrap();
    }

    /// The host starts the cluster's pods.
    pub fn start_pods(&self, cluster: ClusterId, control_plane: [u8; 4]) {
        let pod = |component, name: &str, address: [u8; 4]| PodInfo {
            cluster,
            component,
            name: name.to_owned(),
            address: Some(address.into()),
            ready: true,
            terminating: false,
            waiting_reason: None,
        };
        let etcd = pod(Component::Etcd, "etcd-0", [100, 64, 0, 2]);
        let api = pod(Component::ControlPlane, "control-plane-x", control_plane);
        self.ctx.pods.take(WatchEvent::All(vec![etcd, api]));
    }

    pub async fn reconcile_cluster(&self, id: ClusterId) -> Result<Outcome, ReconcileError> {
        self.ctx.reconcile(migrations::WorkKind::Cluster, id.uuid()).await
    }

    /// The same, counted by the axe.
    pub async fn looked_at(&self, id: ClusterId) -> Result<Outcome, ReconcileError> {
        self.cancel_at.over(self.reconcile_cluster(id)).await.unwrap()
    }

    /// Reconciles everything that is due or soon will be, until nothing changes any more; failures are tried again.
    pub async fn converge(&self) {
        let (mut seen, mut quiet) = (String::new(), 0);
        while quiet < 4 {
            self.round().await;
            let state = self.state().await;
            quiet = if state == seen { quiet + 1 } else { 0 };
            seen = state;
            let next = self.store.work().next_due(migrations::WorkKind::ALL).await.unwrap();
            if next.is_none_or(|next| next - OffsetDateTime::now_utc() > time::Duration::seconds(60)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(6)).await;
        }
    }

    /// What anybody could see.
    async fn state(&self) -> String {
        let clusters = self.store.clusters().all().await.unwrap();
        let mut state = format!("{clusters:?} {:?} {:?}", self.host.names(), self.tenant.names());
        for cluster in clusters {
            let pools = self.store.pools().of_cluster(cluster.id).await.unwrap();
            let nodes = self.store.nodes().of_cluster(cluster.id).await.unwrap();
            state.push_str(&format!("{pools:?} {nodes:?}"));
        }
        state
    }

    /// Everything that is due, once.
    async fn round(&self) {
        let (soon, kinds) = (Duration::from_millis(5), migrations::WorkKind::ALL);
        let mut done = HashSet::new();
        while let Some(work) = self.store.work().claim("test", Duration::from_secs(60), kinds).await.unwrap() {
            if !done.insert((work.kind, work.id)) {
                return self.store.work().settle(&work, migrations::Settle::Later(soon)).await.unwrap();
            }
            let settle = match self.cancel_at.over(self.ctx.reconcile(work.kind, work.id)).await {
                Some(Ok(Outcome::Gone)) => migrations::Settle::Done,
                Some(Ok(Outcome::Throttled)) => migrations::Settle::Postponed(soon),
                Some(Ok(Outcome::Done)) => migrations::Settle::Later(Duration::from_secs(600)),
                Some(Ok(Outcome::Waiting { .. })) => migrations::Settle::Later(soon),
                Some(Err(_)) | None => migrations::Settle::Failed { backoff: soon },
            };
            self.store.work().settle(&work, settle).await.unwrap();
        }
    }
}
