//! A small world for tests: a real store on a SQLite file, a scripted host and tenant, machines without machines.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloud_providers::memory::Memory;
use migrations::{
    Actor, Cluster, Kek, NewCluster, NewOwner, NewPool, NodePool, Organization, PoolKind, Project, Store,
};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::render::{Images, Placement, PullPolicy};
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::version::KubernetesVersion;
use tokio_util::sync::CancellationToken;

use crate::config::{Facts, Tuning};
use crate::context::{Context, Parts};
use crate::engine::{Outcome, Reconcile};
use crate::host::facts::Component;
use crate::host::testing::{Fate, Scripted, ScriptedConnector};
use crate::host::{Connector, Kubernetes, PodFact, Seen};
use crate::keys::SystemKeys;
use crate::trouble::Trouble;

pub struct World {
    pub store: Store,
    pub organization: Organization,
    pub project: Project,
    pub fate: Arc<Fate>,
    pub host: Arc<Scripted>,
    pub tenant: Arc<Scripted>,
    pub machines: Arc<Memory>,
    pub ctx: Arc<Context>,
    _dir: tempfile::TempDir,
}

/// Short waits.
pub fn tuning() -> Tuning {
    Tuning {
        patience: Duration::from_millis(50),
        probe_every: Duration::from_millis(2),
        grace: Duration::ZERO,
        farewell: Duration::from_millis(1500),
        ..Tuning::default()
    }
}

pub fn facts() -> Facts {
    let image = |name: &str| format!("pilothouse.internal/{name}:1");
    let images = Images {
        apiserver: image("kube-apiserver"),
        controller_manager: image("kube-controller-manager"),
        scheduler: image("kube-scheduler"),
        etcd: image("etcd"),
    };
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
    Facts {
        domain: placement.domain.clone(),
        placement,
        gateway: SocketAddr::from(([127, 0, 0, 1], 8443)),
        machine_gateway: "192.0.2.1:8443".to_owned(),
        platform_ca_pem: "CA".to_owned(),
        portal_url: "https://192.0.2.1:8443".to_owned(),
        coredns_image: image("coredns"),
    }
}

pub async fn store(dir: &tempfile::TempDir) -> Store {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kek = Kek::load_or_create(&dir.path().join("kek")).unwrap();
    Store::connect(&format!("sqlite://{}/db.sqlite", dir.path().display()), kek).await.unwrap()
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        let token = store.identity().create_setup_token().await.unwrap();
        let owner =
            NewOwner { email: "a@example.com".into(), display_name: "A".into(), password_hash: "x".to_owned().into() };
        let token = migrations::ExposeSecret::expose_secret(&token).to_owned();
        let (_, organization) = store.identity().complete_setup(&token, owner).await.unwrap();
        let project = store.identity().projects(organization.id).await.unwrap().remove(0);
        let fate = Arc::new(Fate::default());
        let (host, tenant) = (Scripted::new(Arc::clone(&fate)), Scripted::new(Arc::clone(&fate)));
        let connector = Arc::new(ScriptedConnector { tenant: Arc::clone(&tenant), opened: Mutex::default() });
        let machines = Arc::new(Memory::new());
        let ctx = Context::new(Parts {
            store: store.clone(),
            host: Arc::clone(&host) as Arc<dyn Kubernetes>,
            connector: Arc::clone(&connector) as Arc<dyn Connector>,
            providers: vec![Arc::clone(&machines) as _],
            keys: Arc::new(SystemKeys),
            facts: Arc::new(facts()),
            tuning: tuning(),
            ending: CancellationToken::new(),
        });
        Self { store, organization, project, fate, host, tenant, machines, ctx, _dir: dir }
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
            .insert(NewPool { cluster, organization, name, kind, count, actor: Actor::System })
            .await
            .unwrap()
    }

    /// The host starts the cluster's pods.
    pub fn start_pods(&self, cluster: ClusterId, control_plane: [u8; 4]) {
        let pod = |component, name: &str, address: [u8; 4]| PodFact {
            cluster,
            component,
            name: name.to_owned(),
            address: Some(address.into()),
            ready: true,
            leaving: false,
            complaint: String::new(),
        };
        let etcd = pod(Component::Etcd, "etcd-0", [100, 64, 0, 2]);
        let api = pod(Component::ControlPlane, "control-plane-x", control_plane);
        self.ctx.pods.take(Seen::All(vec![etcd, api]));
    }

    pub async fn reconcile_cluster(&self, id: ClusterId) -> Result<Outcome, Trouble> {
        self.ctx.reconcile(migrations::WorkKind::Cluster, id.uuid()).await
    }

    /// Reconciles everything that is due or soon will be, until nothing changes any more; failures are tried again.
    pub async fn converge(&self) {
        for _ in 0..60 {
            let kinds = [migrations::WorkKind::Cluster, migrations::WorkKind::NodePool, migrations::WorkKind::Node];
            while let Some(work) = self.store.work().claim("test", Duration::from_secs(60), &kinds).await.unwrap() {
                let ended = self.ctx.reconcile(work.kind, work.id).await;
                let settle = match ended {
                    Ok(Outcome::Gone) => migrations::Settle::Done,
                    Ok(Outcome::Done) => migrations::Settle::Later(Duration::from_secs(600)),
                    Ok(Outcome::Waiting { .. }) => migrations::Settle::Later(Duration::from_millis(5)),
                    Err(_) => migrations::Settle::Failed { backoff: Duration::from_millis(5) },
                };
                self.store.work().settle(&work, settle).await.unwrap();
                if settle != migrations::Settle::Done
                    && !matches!(settle, migrations::Settle::Later(wait) if wait.as_secs() > 0)
                {
                    break;
                }
            }
            let next = self.store.work().next_due(&kinds).await.unwrap();
            if next.is_none_or(|next| next - time::OffsetDateTime::now_utc() > time::Duration::seconds(60)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(6)).await;
        }
    }
}
