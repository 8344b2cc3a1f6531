//! The configuration, at once and again each time it changes. Changes of rows wake it; what it then sends is read anew. A node has
//! one watch: the next one ends the one before.

use std::time::Duration;

use migrations::{Change, ChangeKind, StoreError};
use node_protocol::NodeConfig;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Agents, BoxStream, Caller, refusal, unavailable};
use crate::family::Family;

/// For what no signal told.
const ROUTINE_LOOK: Duration = Duration::from_secs(30);

/// Every configuration of a node, until its agent hangs up or the node is removed. `known`: the generation the agent follows.
pub fn watch(agents: Agents, caller: Caller, known: u64) -> BoxStream<NodeConfig> {
    let (sender, receiver) = mpsc::channel(1);
    let (changes, next) = (agents.inner.store.changes(), agents.inner.bounds.watch(caller.node));
    tokio::spawn(async move {
        let told = next.run_until_cancelled(tell(&agents, (caller, known), changes, &sender)).await;
        if let Err(status) = told.unwrap_or_else(|| Err(Status::aborted("superseded by a newer watch of this node"))) {
            // The agent may have hung up.
            let _ = sender.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

type Sender = mpsc::Sender<Result<NodeConfig, Status>>;

async fn tell(
    agents: &Agents,
    (caller, mut known): (Caller, u64),
    mut changes: broadcast::Receiver<Change>,
    sender: &Sender,
) -> Result<(), Status> {
    let mut told = None;
    loop {
        let own = wanted(agents, caller).await?;
        let config = config(agents, &own, known).await?;
        if told.as_ref() != Some(&config) {
            known = config.generation;
            told = Some(config.clone());
            if sender.send(Ok(config)).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            () = concerning(&mut changes, &own) => {}
            () = tokio::time::sleep(ROUTINE_LOOK) => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

/// The node with what it belongs to.
///
/// # Errors
/// That it was removed, or that nothing is known of it.
async fn wanted(agents: &Agents, caller: Caller) -> Result<Family, Status> {
    let (store, failed) = (&agents.inner.store, |error: StoreError| unavailable(&error));
    let Some(own) = Family::load(store, caller.node).await.map_err(failed)? else {
        return Err(refusal::absent(store, caller).await);
    };
    let removed = if own.is_leaving() { refusal::removal(store, caller).await.map_err(failed)? } else { None };
    removed.map_or(Ok(own), Err)
}

async fn config(agents: &Agents, own: &Family, known: u64) -> Result<NodeConfig, Status> {
    let failed = |error: StoreError| unavailable(&error);
    let version = own.cluster.spec.version;
    if !own.is_leaving() && agents.inner.parts.list(version).is_empty() {
        // A node that is told of no parts would end what it runs.
        return Err(Status::unavailable(format!(
            "the platform no longer provides Kubernetes {version}: left unchanged"
        )));
    }
    let pki = agents.inner.store.pki().get(own.cluster.id).await.map_err(failed)?;
    let pki = pki.ok_or_else(|| Status::failed_precondition("the cluster has no keys"))?;
    agents.desired(own, &pki, known).await.map_err(failed)
}

/// Ends with a change that may concern this node.
async fn concerning(changes: &mut broadcast::Receiver<Change>, own: &Family) {
    loop {
        match changes.recv().await {
            Ok(change) if is_concerning(&change, own) => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn is_concerning(change: &Change, own: &Family) -> bool {
    match change.kind {
        ChangeKind::Node => change.id == own.node.id.uuid(),
        ChangeKind::NodePool => change.id == own.pool.id.uuid(),
        ChangeKind::Cluster => change.id == own.cluster.id.uuid(),
        ChangeKind::Resync => true,
        _ => false,
    }
}
