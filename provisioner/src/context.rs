//! What every reconcile uses: the store, the host, clients of tenants, and what was observed last.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloud_providers::Provider;
use migrations::{Cluster, PoolKind, Store, WorkKind};
use serde_json::Value;
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::pki::KeySource;
use tenant_controlplane::status::ProblemCode;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{InstallationInfo, Tuning};
use crate::error::ReconcileError;
use crate::host::{ApiError, Connector, Kubernetes};
use crate::pods::Pods;
use crate::shares::Shares;
use crate::tenants::Tenants;

/// Shared by all reconcilers.
pub struct Context {
    /// The store.
    pub store: Store,
    /// The host.
    pub host: Arc<dyn Kubernetes>,
    /// Clients of tenants, and their nodes as Kubernetes has them.
    pub tenants: Arc<Tenants>,
    /// Pods of control planes.
    pub pods: Arc<Pods>,
    /// Sources of machines.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Key pairs.
    pub keys: Arc<dyn KeySource>,
    /// What this installation is like.
    pub installation: Arc<InstallationInfo>,
    /// Concurrency and timeouts.
    pub tuning: Tuning,
    /// Whether the host's CPUs are idle.
    pub host_idle: watch::Receiver<bool>,
    /// Cancelled when the process ends: nothing is waited for then.
    pub ending: CancellationToken,
    /// Who may hold how many of the permits.
    pub shares: Arc<Shares>,
    applied: Mutex<HashMap<(ClusterId, ApplyTarget), (u64, Instant)>>,
    unsettled: Mutex<HashMap<ClusterId, Unsettled>>,
    /// Whether what all control planes share in the host is there.
    shared: AtomicBool,
}

/// Since when a cluster has not been settled, over all reconciles.
#[derive(Clone, Copy, Debug)]
pub struct Unsettled {
    /// Since when anything is left to do.
    pub since: Instant,
    /// Since when it does not answer from outside.
    pub unreachable_since: Option<Instant>,
}

/// Where objects were applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApplyTarget {
    /// In the host.
    Host,
    /// In the host, too: whom the API servers believe.
    Clients,
    /// Inside the tenant.
    Tenant,
}

/// What a [`Context`] is made of.
pub struct Dependencies {
    /// The store.
    pub store: Store,
    /// The host.
    pub host: Arc<dyn Kubernetes>,
    /// Creates clients of tenants.
    pub connector: Arc<dyn Connector>,
    /// Sources of machines.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Key pairs.
    pub keys: Arc<dyn KeySource>,
    /// What this installation is like.
    pub installation: Arc<InstallationInfo>,
    /// Concurrency and timeouts.
    pub tuning: Tuning,
    /// Whether the host's CPUs are idle.
    pub host_idle: watch::Receiver<bool>,
    /// Cancelled when the process ends.
    pub ending: CancellationToken,
}

impl Context {
    /// A context that has seen nothing yet.
    pub fn new(dependencies: Dependencies) -> Arc<Self> {
        let Dependencies { store, host, connector, providers, keys, installation, tuning, host_idle, ending } =
            dependencies;
        let tenants = Arc::new(Tenants::new(store.clone(), connector, Arc::clone(&keys), Arc::clone(&installation)));
        let shares = Shares::new(&tuning);
        let (pods, applied, unsettled, shared) =
            (Arc::default(), Mutex::default(), Mutex::default(), AtomicBool::default());
        Arc::new(Self {
            store,
            host,
            tenants,
            pods,
            providers: providers.into_iter().map(crate::trace::traced).collect(),
            keys,
            installation,
            tuning,
            host_idle,
            ending,
            shares,
            applied,
            unsettled,
            shared,
        })
    }

    /// The provider of a pool's machines; `None` for machines users bring.
    ///
    /// # Errors
    /// [`ReconcileError`] when this installation has no such provider.
    pub fn provider(&self, kind: PoolKind) -> Result<Option<&dyn Provider>, ReconcileError> {
        if kind == PoolKind::Byo {
            return Ok(None);
        }
        let found = self.providers.iter().find(|provider| provider.kind() == kind.as_str());
        let missing =
            || ReconcileError::new(ProblemCode::ProviderMissing, format!("Provider `{kind}` is not configured."));
        found.map(|provider| Some(&**provider)).ok_or_else(missing)
    }

    /// Whether these objects were applied a while ago at the longest, unchanged, by this process.
    pub fn is_applied(&self, cluster: ClusterId, target: ApplyTarget, hash: u64) -> bool {
        let applied = self.applied();
        let found = applied.get(&(cluster, target));
        found.is_some_and(|(known, when)| *known == hash && when.elapsed() < self.tuning.reapply)
    }

    /// Remembers that these objects are applied.
    pub fn set_applied(&self, cluster: ClusterId, target: ApplyTarget, hash: u64) {
        self.applied().insert((cluster, target), (hash, Instant::now()));
    }

    /// Forgets that anything is applied there.
    pub fn unapply(&self, cluster: ClusterId, target: ApplyTarget) {
        self.applied().remove(&(cluster, target));
    }

    /// Something is left to do for a cluster, now or still.
    pub fn unsettled(&self, cluster: ClusterId) -> Unsettled {
        *self
            .unsettled_clusters()
            .entry(cluster)
            .or_insert_with(|| Unsettled { since: Instant::now(), unreachable_since: None })
    }

    /// Records whether a cluster answered from outside; returns since when it did not.
    pub fn record_probe(&self, cluster: ClusterId, answered: bool) -> Option<Instant> {
        let mut unsettled_clusters = self.unsettled_clusters();
        let unsettled = unsettled_clusters
            .entry(cluster)
            .or_insert_with(|| Unsettled { since: Instant::now(), unreachable_since: None });
        unsettled.unreachable_since =
            if answered { None } else { unsettled.unreachable_since.or_else(|| Some(Instant::now())) };
        unsettled.unreachable_since
    }

    /// Nothing is left to do for a cluster.
    pub fn set_settled(&self, cluster: ClusterId) {
        self.unsettled_clusters().remove(&cluster);
    }

    fn unsettled_clusters(&self) -> MutexGuard<'_, HashMap<ClusterId, Unsettled>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process put into the host what all control planes share.
    pub fn has_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Remembers that it did.
    pub fn set_shared(&self) {
        self.shared.store(true, Ordering::Relaxed);
    }

    /// Forgets a cluster that is gone.
    pub fn forget(&self, cluster: ClusterId) {
        self.set_settled(cluster);
        self.applied().retain(|(known, _), _| *known != cluster);
        self.tenants.forget(cluster);
    }

    fn applied(&self) -> MutexGuard<'_, HashMap<(ClusterId, ApplyTarget), (u64, Instant)>> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Talks with a tenant's API server, for as long as one visit may.
    ///
    /// # Errors
    /// What the talk ends in, or [`ReconcileError`] when it does not end.
    pub async fn with_timeout<T>(
        &self,
        call: impl Future<Output = Result<T, ReconcileError>> + Send,
    ) -> Result<T, ReconcileError> {
        let ended = tokio::time::timeout(self.tuning.tenant_timeout, call).await;
        ended.unwrap_or_else(|_| Err(ReconcileError::cluster_api(ApiError::Slow(self.tuning.tenant_timeout))))
    }

    /// Makes something due now.
    ///
    /// # Errors
    /// [`ReconcileError`] when the database does not take it.
    pub async fn due(&self, kind: WorkKind, id: Uuid) -> Result<(), ReconcileError> {
        Ok(self.store.work().due(kind, id).await?)
    }
}

/// A number that differs when the objects do.
pub fn fingerprint<'a>(objects: impl IntoIterator<Item = &'a Value>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for object in objects {
        object.to_string().hash(&mut hasher);
    }
    hasher.finish()
}

/// Whether a cluster is on its way out.
pub const fn is_deleting(cluster: &Cluster) -> bool {
    cluster.deletion_requested_at.is_some()
}
