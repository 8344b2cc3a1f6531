//! The configuration, at once and again each time it changes. Changes of rows wake it; what it then sends is read anew. A node has
//! one watch: the next one ends the one before.

use std::time::Duration;

use migrations::{Change, ChangeKind, StoreError};
use node_protocol::NodeConfig;
use tenant_controlplane::id::NodeId;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Agents, BoxStream, unavailable, was_removed};
use crate::family::Family;

/// For what no signal told.
const ROUTINE_LOOK: Duration = Duration::from_secs(30);

/// Everything an agent is told, until it hangs up.
pub fn watch(agents: Agents, node: NodeId) -> BoxStream<NodeConfig> {
    let (sender, receiver) = mpsc::channel(1);
    let (changes, next) = (agents.inner.store.changes(), agents.inner.bounds.watch(node));
    tokio::spawn(async move {
        let told = next.run_until_cancelled(tell(&agents, node, changes, &sender)).await;
        if let Err(status) = told.unwrap_or_else(|| Err(Status::aborted("this node watches elsewhere by now"))) {
            // The agent may have hung up.
            let _ = sender.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

type Sender = mpsc::Sender<Result<NodeConfig, Status>>;

async fn tell(
    agents: &Agents,
    node: NodeId,
    mut changes: broadcast::Receiver<Change>,
    sender: &Sender,
) -> Result<(), Status> {
    let mut told = None;
    loop {
        let own = Family::load(&agents.inner.store, node).await.map_err(|error| unavailable(&error))?;
        let Some(own) = own else { return Err(was_removed(&node.to_string())) };
        let config = config(agents, &own).await?;
        if told.as_ref() != Some(&config) {
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

async fn config(agents: &Agents, own: &Family) -> Result<NodeConfig, Status> {
    let failed = |error: StoreError| unavailable(&error);
    let version = own.cluster.spec.version;
    if !own.is_leaving() && agents.inner.parts.list(version).is_empty() {
        // A node that is told of no parts would end what it runs.
        return Err(Status::unavailable(format!("the platform no longer has Kubernetes {version}: left as it is")));
    }
    let pki = agents.inner.store.pki().get(own.cluster.id).await.map_err(failed)?;
    let pki = pki.ok_or_else(|| Status::failed_precondition("the cluster has no keys"))?;
    agents.desired(own, &pki).await.map_err(failed)
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
