//! A removed node's gRPC link: it is told so, rather than left guessing at a closed connection.
//!
//! The node's first call is answered with a trailers-only `PERMISSION_DENIED` (gRPC over HTTP/2, "Responses").

use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{Request, Response};
use tokio::time::timeout;
use tracing::debug;

use crate::conn::TlsStream;

/// gRPC status code PERMISSION_DENIED.
const PERMISSION_DENIED: &str = "7";

/// Answers calls for at most `patience`, each with the same refusal, then closes.
pub(crate) async fn explain(stream: TlsStream, node_id: &str, patience: Duration) {
    let _ = timeout(patience, answer(stream, node_id)).await;
}

async fn answer(stream: TlsStream, node_id: &str) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        refuse(call?, node_id)?;
        connection.graceful_shutdown();
    }
    Ok(())
}

fn refuse((_, mut reply): (Request<RecvStream>, SendResponse<Bytes>), node_id: &str) -> Result<(), h2::Error> {
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", PERMISSION_DENIED)
        .header("grpc-message", format!("node {node_id} was removed from its cluster"))
        .body(());
    match response {
        Ok(response) => reply.send_response(response, true).map(drop),
        Err(error) => {
            debug!(%error, "refusal not sent");
            Ok(())
        }
    }
}
