//! One part of the bundle, from an offset on, in chunks. Only what the node's own cluster version needs is handed out.
//!
//! A reader may be as slow as it likes: it holds no thread, because the disk is asked for a chunk once there is room for it, and one of
//! its node's few places until it has all or hangs up.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use futures::StreamExt;
use migrations::Node;
use node_protocol::{Chunk, FetchRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Agents, BoxStream, unavailable};

/// Bytes per message.
const CHUNK: usize = 256 * 1024;
/// zstd's fastest regular level: kubelet becomes 30 % of itself, at some 300 megabytes a second.
const LEVEL: i32 = 1;
/// Messages read ahead.
const AHEAD: usize = 2;

type Sender = mpsc::Sender<Result<Chunk, Status>>;

/// Begins to send a part.
///
/// # Errors
/// `NOT_FOUND` for a part this node does not need, `OUT_OF_RANGE` for an offset beyond its end.
pub async fn fetch(agents: &Agents, node: &Node, request: FetchRequest) -> Result<BoxStream<Chunk>, Status> {
    let place = agents.inner.bounds.fetch(node.id).await.ok_or_else(|| Status::unavailable("try again"))?;
    let cluster = agents.inner.store.clusters().load(node.cluster).await.map_err(|error| unavailable(&error))?;
    let parts = agents.inner.parts.list(cluster.spec.version);
    let part = parts.into_iter().find(|part| part.sha256 == request.sha256);
    let part = part.ok_or_else(|| Status::not_found("no part of that checksum belongs to this node's version"))?;
    if request.offset > part.size {
        return Err(Status::out_of_range(format!("the part has {} bytes", part.size)));
    }
    let file = agents.inner.parts.open(&part.sha256).map_err(|error| unavailable(&error))?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(send(Arc::new(file), request, sender));
    // What is read ahead counts as long as it is there.
    let chunks = ReceiverStream::new(receiver).map(move |chunk| {
        let _held = &place;
        chunk
    });
    Ok(Box::pin(chunks))
}

/// Sends to the end, or until nobody listens.
async fn send(file: Arc<File>, FetchRequest { mut offset, zstd, .. }: FetchRequest, sender: Sender) {
    while let Ok(room) = sender.reserve().await {
        match next(Arc::clone(&file), offset, zstd).await {
            Ok((_, 0)) => return,
            Ok((chunk, read)) => {
                room.send(Ok(chunk));
                offset = offset.saturating_add(read as u64);
            }
            Err(error) => return room.send(Err(unavailable(&error))),
        }
    }
}

/// The next bytes from `offset` on, packed if wished and worth it, and how many they are; none at the end.
async fn next(file: Arc<File>, offset: u64, zstd: bool) -> io::Result<(Chunk, usize)> {
    let read = tokio::task::spawn_blocking(move || {
        let (mut data, mut filled) = (vec![0; CHUNK], 0);
        while filled < CHUNK {
            match file.read_at(&mut data[filled..], offset + filled as u64)? {
                0 => break,
                more => filled += more,
            }
        }
        data.truncate(filled);
        let packed = if zstd { zstd::bulk::compress(&data, LEVEL)? } else { Vec::new() };
        let chunk = match u32::try_from(filled) {
            Ok(unpacked) if zstd && packed.len() < filled => Chunk { data: packed, unpacked },
            _ => Chunk { data, unpacked: 0 },
        };
        Ok((chunk, filled))
    });
    read.await.map_err(io::Error::other)?
}
