//! Nodes that were removed and come back by themselves: a copied kubelet certificate is good for a while after its node has gone.
//!
//! Only names of removed nodes are looked for. Nodes that a cluster's owner makes himself, such as virtual ones, are his business.

use tenant_controlplane::id::ClusterId;

use crate::context::Context;
use crate::host::{Kubernetes, ObjectKey};
use crate::trouble::Trouble;

/// Deletes the Kubernetes nodes that were removed here before and are there again.
///
/// # Errors
/// [`Trouble`] of the store or the tenant's API server.
pub async fn shut_out(ctx: &Context, cluster: ClusterId, api: &dyn Kubernetes) -> Result<(), Trouble> {
    let departed = ctx.store.nodes().departed(cluster).await?;
    if departed.is_empty() {
        return Ok(());
    }
    let refused = |error| Trouble::api("cluster", error);
    let there = api.list("v1", "Node").await.map_err(refused)?;
    let names = there.iter().filter_map(|node| node["metadata"]["name"].as_str());
    let back: Vec<&str> = names.filter(|name| departed.iter().any(|gone| gone == name)).collect();
    for name in back {
        tracing::warn!(%cluster, node = name, "a node that was removed is there again: deleting it");
        api.delete(&ObjectKey::global("v1", "Node", name)).await.map_err(refused)?;
    }
    Ok(())
}
