//! From watches to work: pods that changed make their cluster due, Kubernetes nodes theirs. Signals wake and carry no state.

use std::sync::Arc;

use migrations::WorkKind;
use tenant_controlplane::id::ClusterId;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::engine::Engine;
use crate::error::ReconcileError;

/// Passes signals on until cancelled.
pub async fn run(ctx: Arc<Context>, engine: Arc<Engine>, cancel: CancellationToken) {
    let (mut pods, mut nodes) = (ctx.pods.changes(), ctx.tenants.changes());
    loop {
        tokio::select! {
            pod = pods.recv() => match pod {
                Ok(cluster) => engine.wake(WorkKind::Cluster, cluster.uuid()).await,
                // The routine visit finds what was missed.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            node = nodes.recv() => match node {
                Ok((cluster, name)) => wake_nodes(&ctx, &engine, cluster, &name).await,
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            () = cancel.cancelled() => return,
        }
    }
}

async fn wake_nodes(ctx: &Context, engine: &Engine, cluster: ClusterId, name: &str) {
    if let Err(error) = try_wake_nodes(ctx, engine, cluster, name).await {
        tracing::debug!(%cluster, error = crate::chain(&error), "wake nodes");
    }
}

async fn try_wake_nodes(ctx: &Context, engine: &Engine, cluster: ClusterId, name: &str) -> Result<(), ReconcileError> {
    let nodes = ctx.store.nodes().of_cluster(cluster).await?;
    if nodes.is_empty() {
        ctx.tenants.forget(cluster);
    }
    if !name.is_empty() && nodes.iter().all(|node| node.name.as_str() != name) {
        // Perhaps one that was removed and is here again.
        engine.wake(WorkKind::Cluster, cluster.uuid()).await;
    }
    for node in nodes.iter().filter(|node| name.is_empty() || node.name.as_str() == name) {
        engine.wake(WorkKind::Node, node.id.uuid()).await;
    }
    Ok(())
}
