//! Nodes that were removed and come back by themselves: a copied kubelet certificate is good for a while after its node has gone.
//!
//! Only names of removed nodes are looked for, each by itself: a cluster's owner makes as many nodes as he likes. Nodes that a cluster's owner makes himself, such as virtual ones, are his business.

use futures::{StreamExt, TryStreamExt, stream};
use tenant_controlplane::id::ClusterId;

use crate::context::Context;
use crate::host::{Kubernetes, ObjectKey};
use crate::trouble::Trouble;

/// How many names are asked for at a time.
const AT_ONCE: usize = 8;

/// Deletes the Kubernetes nodes that were removed here before and are there again.
///
/// # Errors
/// [`Trouble`] of the store or the tenant's API server.
pub async fn shut_out(ctx: &Context, cluster: ClusterId, api: &dyn Kubernetes) -> Result<(), Trouble> {
    let departed = ctx.store.nodes().departed(cluster).await?;
    // Where nodes are watched, the watch knows of most that they are not there.
    let doubtful = departed.iter().filter(|name| ctx.tenants.node(cluster, name) != Some(None));
    let each: Vec<_> = doubtful.map(|name| delete_if_there(cluster, name, api)).collect();
    stream::iter(each).buffer_unordered(AT_ONCE).try_collect().await
}

async fn delete_if_there(cluster: ClusterId, name: &str, api: &dyn Kubernetes) -> Result<(), Trouble> {
    let (key, refused) = (ObjectKey::global("v1", "Node", name), |error| Trouble::api("cluster", error));
    if api.exists(&key).await.map_err(refused)? {
        tracing::warn!(%cluster, node = name, "a node that was removed is there again: deleting it");
        api.delete(&key).await.map_err(refused)?;
    }
    Ok(())
}
