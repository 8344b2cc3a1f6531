//! The node-local API address: what pods reach as `kubernetes.default`, forwarded over the link to the cluster's API server.
//!
//! The bytes are the pods' own TLS with the API server; nothing here reads them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use node_protocol::ALPN_API;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::link::{Link, LinkError};
use crate::supervise::describe;

/// Connections at a time; more wait.
const CONNECTIONS: usize = 1024;

/// Listens until stopped; tries again while the address cannot be bound.
pub async fn run(address: SocketAddr, link: Link, stop: CancellationToken) {
    loop {
        let listening = async {
            let listener = TcpListener::bind(address).await?;
            serve(listener, link.clone()).await
        };
        match stop.run_until_cancelled(listening).await {
            None => return,
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!(%address, %error, "not listening for the cluster's API; trying again"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(1))).await.is_none() {
            return;
        }
    }
}

async fn serve(listener: TcpListener, link: Link) -> std::io::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.map_err(std::io::Error::other)?;
        let (client, _) = listener.accept().await?;
        let link = link.clone();
        tokio::spawn(async move {
            if let Err(error) = forward(client, &link).await {
                tracing::debug!(error = describe(&error), "api connection ended");
            }
            drop(slot);
        });
    }
}

async fn forward(mut client: TcpStream, link: &Link) -> Result<(), LinkError> {
    let dialled = link.dial(ALPN_API).await;
    if dialled.is_err() {
        // The client sees an abort, not an answer that ended.
        let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
    }
    let mut server = dialled?;
    let _ = client.set_nodelay(true);
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    Ok(())
}
