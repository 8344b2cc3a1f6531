//! Nodes that were removed and come back by themselves: a copied kubelet certificate is good for a while after its node has gone.
//!
//! Only names of removed nodes are looked for, each by itself: a cluster's owner makes as many nodes as he likes. Nodes that a cluster's owner makes himself, such as virtual ones, are his business.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use migrations::Cluster;
use tenant_controlplane::id::ClusterId;
use tokio::time::Instant;

use crate::clients;
use crate::context::Context;
use crate::error::ReconcileError;
use crate::host::{Kubernetes, ObjectKey};

/// How many names are asked for at a time.
const AT_ONCE: usize = 8;

/// Between two questions whether they are refused, while they are not.
const AGAIN: Duration = Duration::from_millis(400);

/// What one visit to a cluster knows of its removed nodes.
#[derive(Debug, Default)]
pub struct RemovedNodes {
    /// Whether every API server is known to refuse them all.
    pub refused: bool,
    asked: Option<Instant>,
    are_evicted: bool,
}

impl RemovedNodes {
    /// Sees to it that nodes that were removed stay removed: once a visit, and until they are refused.
    ///
    /// # Errors
    /// [`ReconcileError`] of the store or the tenant's API servers.
    pub async fn reconcile(
        &mut self,
        ctx: &Context,
        cluster: &Cluster,
        api: &dyn Kubernetes,
    ) -> Result<(), ReconcileError> {
        // A new cluster has lost none.
        if cluster.observed_generation == 0 {
            self.refused = true;
            return Ok(());
        }
        // What keeps the one from us may not keep the other.
        let refused = self.check_rejection(ctx, cluster).await;
        if !self.are_evicted {
            evict_removed(ctx, cluster.id, api).await?;
            self.are_evicted = true;
        }
        refused
    }

    async fn check_rejection(&mut self, ctx: &Context, cluster: &Cluster) -> Result<(), ReconcileError> {
        if !self.refused && self.asked.is_none_or(|asked| asked.elapsed() > AGAIN) {
            self.asked = Some(Instant::now());
            self.refused = are_refused(ctx, cluster).await?;
        }
        Ok(())
    }
}

/// Deletes the Kubernetes nodes that were removed here before and are there again.
///
/// # Errors
/// [`ReconcileError`] of the store or the tenant's API server.
async fn evict_removed(ctx: &Context, cluster: ClusterId, api: &dyn Kubernetes) -> Result<(), ReconcileError> {
    let removed = ctx.store.nodes().removed_names(cluster).await?;
    // Where nodes are watched, the watch knows of most that they are not there.
    let doubtful = removed.iter().filter(|name| ctx.tenants.node(cluster, name) != Some(None));
    let each: Vec<_> = doubtful.map(|name| delete_if_there(cluster, name, api)).collect();
    stream::iter(each).buffer_unordered(AT_ONCE).try_collect().await
}

/// Whether every API server was seen to refuse the removed nodes' certificates, also of those that went by force. It is noted of each, and
/// whoever follows the notes cuts the connections that began before.
///
/// # Errors
/// [`ReconcileError`] of the store or the tenant's API servers.
async fn are_refused(ctx: &Context, cluster: &Cluster) -> Result<bool, ReconcileError> {
    let unrefused = ctx.store.tombstones().unrefused(cluster.id).await?;
    for tombstone in unrefused.iter().take(AT_ONCE) {
        if !clients::refuse(ctx, cluster, &tombstone.name).await? {
            return Ok(false);
        }
        ctx.store.tombstones().mark_refused(tombstone.node).await?;
    }
    Ok(unrefused.len() <= AT_ONCE)
}

async fn delete_if_there(cluster: ClusterId, name: &str, api: &dyn Kubernetes) -> Result<(), ReconcileError> {
    let (key, refused) = (ObjectKey::global("v1", "Node", name), ReconcileError::cluster_api);
    if api.exists(&key).await.map_err(refused)? {
        tracing::warn!(%cluster, node = name, "a removed node registered again: deleting its Node object");
        api.delete(&key).await.map_err(refused)?;
    }
    Ok(())
}
