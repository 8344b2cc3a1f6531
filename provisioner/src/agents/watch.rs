//! The configuration, at once and again each time it changes. Changes of rows wake it; what it then sends is read anew. A node has
//! one watch: the next one ends the one before.

use std::time::Duration;

use migrations::{Change, ChangeKind, StoreError, WorkKind};
use node_protocol::NodeConfig;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Agents, BoxStream, Caller, refusal, unavailable};
use crate::node_context::NodeContext;
use crate::trace;

/// For changes without a signal.
const ROUTINE_LOOK: Duration = Duration::from_secs(30);

/// Every configuration of a node, until its agent hangs up or the node is removed. `known`: the generation the agent follows.
pub fn watch(agents: Agents, caller: Caller, known: u64) -> BoxStream<NodeConfig> {
    let (sender, receiver) = mpsc::channel(1);
    let (changes, next) = (agents.inner.store.changes(), agents.inner.bounds.watch(caller.node));
    tokio::spawn(async move {
        let sent = next.run_until_cancelled(send_configurations(&agents, (caller, known), changes, &sender)).await;
        if let Err(status) = sent.unwrap_or_else(|| Err(Status::aborted("superseded by a newer watch of this node"))) {
            // The agent may have hung up.
            let _ = sender.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

type Sender = mpsc::Sender<Result<NodeConfig, Status>>;

async fn send_configurations(
    agents: &Agents,
    (caller, mut known): (Caller, u64),
    mut changes: broadcast::Receiver<Change>,
    sender: &Sender,
) -> Result<(), Status> {
    let mut sent = None;
    loop {
        let node_context = load_context(agents, caller).await?;
        let config = config(agents, &node_context, known).await?;
        if sent.as_ref() != Some(&config) {
            known = config.generation;
            sent = Some(config.clone());
            let traceparent = traceparent(agents, &node_context).await;
            if sender.send(Ok(NodeConfig { traceparent, ..config })).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            () = concerning(&mut changes, &node_context) => {}
            () = tokio::time::sleep(ROUTINE_LOOK) => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

/// The node with its pool and cluster.
///
/// # Errors
/// That it was removed, or that nothing is known of it.
async fn load_context(agents: &Agents, caller: Caller) -> Result<NodeContext, Status> {
    let (store, failed) = (&agents.inner.store, |error: StoreError| unavailable(&error));
    let Some(node_context) = NodeContext::load(store, caller.node).await.map_err(failed)? else {
        return Err(refusal::absent(store, caller).await);
    };
    let removed =
        if node_context.is_deleting() { refusal::removal(store, caller).await.map_err(failed)? } else { None };
    removed.map_or(Ok(node_context), Err)
}

async fn config(agents: &Agents, node_context: &NodeContext, known: u64) -> Result<NodeConfig, Status> {
    let failed = |error: StoreError| unavailable(&error);
    let version = node_context.version();
    if !node_context.is_deleting() && agents.inner.parts.list(version).is_empty() {
        // A node that is told of no parts would end what it runs.
        return Err(Status::unavailable(format!(
            "the platform no longer provides Kubernetes {version}: left unchanged"
        )));
    }
    let pki = agents.inner.store.pki().get(node_context.cluster.id).await.map_err(failed)?;
    let pki = pki.ok_or_else(|| Status::failed_precondition("the cluster has no keys"))?;
    agents.desired(node_context, &pki, known).await.map_err(failed)
}

/// The trace of the operation that a configuration is part of, while that operation goes on; empty when nobody follows one.
async fn traceparent(agents: &Agents, node_context: &NodeContext) -> String {
    let NodeContext { node, pool, cluster } = node_context;
    let work = agents.inner.store.work();
    let ids = [
        (WorkKind::Node, node.id.uuid()),
        (WorkKind::NodePool, pool.id.uuid()),
        (WorkKind::Cluster, cluster.id.uuid()),
    ];
    for (kind, id) in ids {
        // A configuration goes out with or without it.
        if let Ok(Some(traceparents)) = work.traceparent(kind, id).await {
            return trace::configuration(node.id, &traceparents);
        }
    }
    String::new()
}

/// Ends with a change that may concern this node.
async fn concerning(changes: &mut broadcast::Receiver<Change>, node_context: &NodeContext) {
    loop {
        match changes.recv().await {
            Ok(change) if is_concerning(&change, node_context) => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn is_concerning(change: &Change, node_context: &NodeContext) -> bool {
    match change.kind {
        ChangeKind::Node => change.id == node_context.node.id.uuid(),
        ChangeKind::NodePool => change.id == node_context.pool.id.uuid(),
        ChangeKind::Cluster => change.id == node_context.cluster.id.uuid(),
        ChangeKind::Resync => true,
        _ => false,
    }
}
