//! The keys that sign nodes' certificates, kept for a moment after they were unsealed: a thousand nodes that renew together unseal
//! them once. They are overwritten in memory when they are let go (`Zeroizing`), and nothing else of them leaves this module.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use migrations::{Store, StoreError};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::pki::ClusterPki;

/// How long they are kept. A rotated authority signs again after this at the latest.
const KEPT: Duration = Duration::from_secs(30);
/// Of so many clusters, at most.
const MOST: usize = 64;

/// Unsealed keys by cluster.
#[derive(Default)]
pub struct Signers(Mutex<HashMap<ClusterId, (Instant, Arc<ClusterPki>)>>);

impl Signers {
    /// A cluster's keys; `None` while it has none.
    ///
    /// # Errors
    /// The store's.
    pub async fn get(&self, store: &Store, cluster: ClusterId) -> Result<Option<Arc<ClusterPki>>, StoreError> {
        if let Some(pki) = self.fresh(cluster) {
            return Ok(Some(pki));
        }
        let Some(pki) = store.pki().get(cluster).await?.map(Arc::new) else { return Ok(None) };
        let mut kept = self.kept();
        if kept.len() < MOST {
            kept.insert(cluster, (Instant::now(), pki.clone()));
        }
        Ok(Some(pki))
    }

    fn fresh(&self, cluster: ClusterId) -> Option<Arc<ClusterPki>> {
        let mut kept = self.kept();
        kept.retain(|_, (since, _)| since.elapsed() < KEPT);
        kept.get(&cluster).map(|(_, pki)| pki.clone())
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<ClusterId, (Instant, Arc<ClusterPki>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
