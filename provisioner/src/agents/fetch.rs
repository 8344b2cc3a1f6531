//! One part of the bundle, from an offset on, in chunks. Only what the node's own cluster version needs is handed out.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use migrations::Node;
use node_protocol::{Chunk, FetchRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Agents, BoxStream, unavailable};

/// Bytes per message.
const CHUNK: usize = 256 * 1024;
/// Messages read ahead.
const AHEAD: usize = 4;

/// Begins to send a part.
///
/// # Errors
/// `NOT_FOUND` for a part this node does not need, `OUT_OF_RANGE` for an offset beyond its end.
pub async fn fetch(agents: &Agents, node: &Node, request: FetchRequest) -> Result<BoxStream<Chunk>, Status> {
    let cluster = agents.inner.store.clusters().load(node.cluster).await.map_err(|error| unavailable(&error))?;
    let parts = agents.inner.parts.list(cluster.spec.version);
    let part = parts.into_iter().find(|part| part.sha256 == request.sha256);
    let part = part.ok_or_else(|| Status::not_found("no part of that checksum belongs to this node's version"))?;
    if request.offset > part.size {
        return Err(Status::out_of_range(format!("the part has {} bytes", part.size)));
    }
    let file = agents.inner.parts.open(&part.sha256).map_err(|error| unavailable(&error))?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || read(file, request.offset, &sender));
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Reads to the end, or until nobody listens.
fn read(mut file: File, offset: u64, sender: &mpsc::Sender<Result<Chunk, Status>>) {
    let sent = file.seek(SeekFrom::Start(offset)).and_then(|_| {
        loop {
            let mut data = Vec::with_capacity(CHUNK);
            if file.by_ref().take(CHUNK as u64).read_to_end(&mut data)? == 0
                || sender.blocking_send(Ok(Chunk { data })).is_err()
            {
                return Ok(());
            }
        }
    });
    if let Err(error) = sent {
        // The agent may have hung up.
        let _ = sender.blocking_send(Err(unavailable(&error)));
    }
}
