//! One part of the bundle, from an offset on, in chunks. Only what the node's own cluster version needs is handed out.
//!
//! A slow reader holds no thread, because the disk is asked for a chunk once there is room for it, and one of its node's few places. One
//! that takes no chunk for [`STALLED`] loses its connection, and with it all that was read ahead for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use migrations::{Node, StoreError};
use node_protocol::{Chunk, FetchRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::packed::Piece;
use super::{Agents, BoxStream, unavailable};
use crate::node_context::NodeContext;

/// Messages read ahead.
const AHEAD: usize = 2;
/// A reader that takes less than a chunk in this time, some 4 KiB a second, does not read.
const STALLED: Duration = Duration::from_secs(60);

type Sender = mpsc::Sender<Result<Chunk, Status>>;

/// Begins to send a part; `cut` ends the connection that it goes over.
///
/// # Errors
/// `NOT_FOUND` for a part this node does not need, `OUT_OF_RANGE` for an offset beyond its end, `RESOURCE_EXHAUSTED` for a node that had
/// its bytes of this hour.
pub async fn fetch(
    agents: &Agents,
    node: &Node,
    cut: CancellationToken,
    request: FetchRequest,
) -> Result<BoxStream<Chunk>, Status> {
    let permit = agents.inner.bounds.transfer(node.cluster, node.id).await.map_err(had_enough)?;
    let own = NodeContext::of(&agents.inner.store, node.clone()).await.map_err(|error| unavailable(&error))?;
    let own = own.ok_or_else(|| unavailable(&StoreError::NotFound { what: "node" }))?;
    let parts = agents.inner.parts.list(own.version());
    let part = parts.into_iter().find(|part| part.sha256 == request.sha256);
    let part = part.ok_or_else(|| Status::not_found("no artifact with this checksum for this node's version"))?;
    if request.offset > part.size {
        return Err(Status::out_of_range(format!("the artifact has {} bytes", part.size)));
    }
    let file = Arc::new(agents.inner.parts.open(&part.sha256).map_err(|error| unavailable(&error))?);
    let (sender, receiver) = mpsc::channel(AHEAD);
    let piece = Piece { file, sha256: part.sha256.into(), offset: request.offset };
    let (agents, node) = (agents.clone(), node.id);
    tokio::spawn(async move {
        let mut sending = std::pin::pin!(Sending { agents, node, piece, packed: request.zstd }.run(sender));
        tokio::select! {
            stalled = &mut sending => if stalled { cut.cancel() },
            () = cut.cancelled() => {}
        }
    });
    // What is read ahead counts as long as it is there.
    let chunks = ReceiverStream::new(receiver).map(move |chunk| {
        let _held = &permit;
        chunk
    });
    Ok(Box::pin(chunks))
}

fn had_enough(wait: Duration) -> Status {
    let minutes = wait.as_secs() / 60 + 1;
    Status::resource_exhausted(format!("this node downloaded its artifacts too often: try again in {minutes} min"))
}

/// What is sent to whom.
struct Sending {
    agents: Agents,
    node: tenant_controlplane::id::NodeId,
    piece: Piece,
    packed: bool,
}

impl Sending {
    /// Sends to the end, or until nobody listens. True when the reader does not read.
    async fn run(mut self, sender: Sender) -> bool {
        loop {
            let room = match tokio::time::timeout(STALLED, sender.reserve()).await {
                Ok(Ok(room)) => room,
                Ok(Err(_)) => return false,
                Err(_) => return true,
            };
            match self.agents.inner.packed.next(self.piece.clone(), self.packed).await {
                Ok((_, 0)) => return false,
                Ok((chunk, read)) => {
                    self.agents.inner.bounds.sent(self.node, read as u64, Instant::now());
                    self.piece.offset = self.piece.offset.saturating_add(read as u64);
                    room.send(Ok(chunk));
                }
                Err(error) => {
                    room.send(Err(unavailable(&error)));
                    return false;
                }
            }
        }
    }
}
