//! What every reconcile has at hand: the store, the host, doors to tenants, and what was seen last.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cloud_providers::Provider;
use migrations::{Cluster, PoolKind, Store, StoreError, WorkKind};
use serde_json::Value;
use tenant_controlplane::id::{ClusterId, NodeId, NodePoolId, OrganizationId};
use tenant_controlplane::pki::KeySource;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{Facts, Tuning};
use crate::engine::{Outcome, Reconcile};
use crate::host::{ApiError, Connector, Kubernetes};
use crate::pods::Pods;
use crate::shares::Shares;
use crate::tenants::Tenants;
use crate::trouble::{Trouble, present};

/// The hands and eyes of all reconcilers.
pub struct Context {
    /// The memory.
    pub store: Store,
    /// The host.
    pub host: Arc<dyn Kubernetes>,
    /// Doors to tenants, and their nodes as Kubernetes has them.
    pub tenants: Arc<Tenants>,
    /// Pods of control planes.
    pub pods: Arc<Pods>,
    /// Sources of machines.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Key pairs.
    pub keys: Arc<dyn KeySource>,
    /// What this installation is like.
    pub facts: Arc<Facts>,
    /// How patient to be.
    pub tuning: Tuning,
    /// Whether the host has processors to spare.
    pub leisure: watch::Receiver<bool>,
    /// Cancelled when the process ends: nothing is waited for then.
    pub ending: CancellationToken,
    /// Who may hold how many of the places.
    pub shares: Arc<Shares>,
    applied: Mutex<HashMap<(ClusterId, Place), (u64, Instant)>>,
    unrest: Mutex<HashMap<ClusterId, Unrest>>,
    /// Whether what all control planes share in the host is there.
    shared: AtomicBool,
}

/// Since when a cluster is not all it should be, over all visits.
#[derive(Clone, Copy, Debug)]
pub struct Unrest {
    /// Since when anything is left to do.
    pub since: Instant,
    /// Since when it does not answer from outside.
    pub silent_since: Option<Instant>,
}

/// Where objects were applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In the host.
    Host,
    /// In the host, too: whom the API servers believe.
    Clients,
    /// Inside the tenant.
    Tenant,
}

/// What a [`Context`] is made of.
pub struct Parts {
    /// The memory.
    pub store: Store,
    /// The host.
    pub host: Arc<dyn Kubernetes>,
    /// Opens doors to tenants.
    pub connector: Arc<dyn Connector>,
    /// Sources of machines.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Key pairs.
    pub keys: Arc<dyn KeySource>,
    /// What this installation is like.
    pub facts: Arc<Facts>,
    /// How patient to be.
    pub tuning: Tuning,
    /// Whether the host has processors to spare.
    pub leisure: watch::Receiver<bool>,
    /// Cancelled when the process ends.
    pub ending: CancellationToken,
}

impl Context {
    /// A context that has seen nothing yet.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { store, host, connector, providers, keys, facts, tuning, leisure, ending } = parts;
        let tenants = Arc::new(Tenants::new(store.clone(), connector, Arc::clone(&keys), Arc::clone(&facts)));
        let shares = Shares::new(&tuning);
        let (pods, applied, unrest, shared) =
            (Arc::default(), Mutex::default(), Mutex::default(), AtomicBool::default());
        Arc::new(Self {
            store,
            host,
            tenants,
            pods,
            providers,
            keys,
            facts,
            tuning,
            leisure,
            ending,
            shares,
            applied,
            unrest,
            shared,
        })
    }

    /// The provider of a pool's machines; `None` for machines users bring.
    ///
    /// # Errors
    /// [`Trouble`] when this installation has no such provider.
    pub fn provider(&self, kind: PoolKind) -> Result<Option<&dyn Provider>, Trouble> {
        if kind == PoolKind::Byo {
            return Ok(None);
        }
        let found = self.providers.iter().find(|provider| provider.kind() == kind.as_str());
        let missing = || {
            let detail = format!("Provider `{kind}` is not configured.");
            let remediation = "Delete the pool, or ask the platform operator to enable the provider.";
            Trouble::new("PROVIDER_MISSING", tenant_controlplane::status::Class::Platform, detail, remediation)
        };
        found.map(|provider| Some(&**provider)).ok_or_else(missing)
    }

    /// Whether these objects were applied a while ago at the longest, unchanged, by this process.
    pub fn is_applied(&self, cluster: ClusterId, place: Place, hash: u64) -> bool {
        let applied = self.applied();
        let found = applied.get(&(cluster, place));
        found.is_some_and(|(known, when)| *known == hash && when.elapsed() < self.tuning.reapply)
    }

    /// Remembers that these objects are applied.
    pub fn set_applied(&self, cluster: ClusterId, place: Place, hash: u64) {
        self.applied().insert((cluster, place), (hash, Instant::now()));
    }

    /// Forgets that anything is applied there.
    pub fn unapply(&self, cluster: ClusterId, place: Place) {
        self.applied().remove(&(cluster, place));
    }

    /// Something is left to do for a cluster, now or still.
    pub fn unrest(&self, cluster: ClusterId) -> Unrest {
        *self.restless().entry(cluster).or_insert_with(|| Unrest { since: Instant::now(), silent_since: None })
    }

    /// Notes whether a cluster answered from outside; says since when it did not.
    pub fn heard(&self, cluster: ClusterId, answered: bool) -> Option<Instant> {
        let mut restless = self.restless();
        let unrest = restless.entry(cluster).or_insert_with(|| Unrest { since: Instant::now(), silent_since: None });
        unrest.silent_since = if answered { None } else { unrest.silent_since.or_else(|| Some(Instant::now())) };
        unrest.silent_since
    }

    /// Nothing is left to do for a cluster.
    pub fn at_rest(&self, cluster: ClusterId) {
        self.restless().remove(&cluster);
    }

    fn restless(&self) -> MutexGuard<'_, HashMap<ClusterId, Unrest>> {
        self.unrest.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.at_rest(cluster);
        self.applied().retain(|(known, _), _| *known != cluster);
        self.tenants.forget(cluster);
    }

    fn applied(&self) -> MutexGuard<'_, HashMap<(ClusterId, Place), (u64, Instant)>> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Talks with a tenant's API server, for as long as one visit may.
    ///
    /// # Errors
    /// What the talk ends in, or [`Trouble`] when it does not end.
    pub async fn visit<T>(&self, talk: impl Future<Output = Result<T, Trouble>> + Send) -> Result<T, Trouble> {
        let ended = tokio::time::timeout(self.tuning.visit, talk).await;
        ended.unwrap_or_else(|_| Err(Trouble::api("cluster", ApiError::Slow(self.tuning.visit))))
    }

    /// Whose something is; `None` for what is not there any more.
    async fn owner(&self, kind: WorkKind, id: Uuid) -> Result<Option<OrganizationId>, StoreError> {
        Ok(match kind {
            WorkKind::Cluster => {
                present(self.store.clusters().load(ClusterId::from_uuid(id)).await)?.map(|row| row.organization)
            }
            WorkKind::NodePool => {
                present(self.store.pools().load(NodePoolId::from_uuid(id)).await)?.map(|row| row.organization)
            }
            WorkKind::Node => {
                present(self.store.nodes().load(NodeId::from_uuid(id)).await)?.map(|row| row.organization)
            }
        })
    }

    /// Makes something due now.
    ///
    /// # Errors
    /// [`Trouble`] when the database does not take it.
    pub async fn due(&self, kind: WorkKind, id: Uuid) -> Result<(), Trouble> {
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
pub const fn leaving(cluster: &Cluster) -> bool {
    cluster.deletion_requested_at.is_some()
}

#[async_trait]
impl Reconcile for Context {
    async fn reconcile(&self, kind: WorkKind, id: Uuid) -> Result<Outcome, Trouble> {
        let owner = self.owner(kind, id).await?;
        let share = owner.map(|owner| self.shares.take(kind, owner));
        if matches!(share, Some(None)) {
            return Ok(Outcome::Crowded);
        }
        match kind {
            WorkKind::Cluster => crate::cluster::reconcile(self, ClusterId::from_uuid(id)).await,
            WorkKind::NodePool => crate::node_pool::reconcile(self, NodePoolId::from_uuid(id)).await,
            WorkKind::Node => crate::node::reconcile(self, NodeId::from_uuid(id)).await,
        }
    }
}
