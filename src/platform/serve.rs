//! Serving HTTP on the decrypted streams that the gateway hands over, and on the loopback port.

mod activity;
mod connection;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use gateway::Sink;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use portal::Connection;
use provisioner::{Agents, Caller};

pub use connection::Portal;

/// After an accept that failed.
const REST: Duration = Duration::from_millis(50);
/// Connections on loopback at a time; more wait in the backlog.
const LOOPBACK: usize = 512;

/// What the gateway does with a connection for the portal.
pub fn portal(portal: Portal) -> Sink {
    Arc::new(move |stream, peer| {
        let (portal, claim) = (portal.clone(), stream.get_ref().0.claim());
        let from = Connection { address: peer.address.ip(), tls: true };
        tokio::spawn(async move { portal.serve(stream, from, claim).await });
    })
}

/// Plain HTTP on loopback, until `cancel`.
pub async fn loopback(portal: Portal, listener: TcpListener, cancel: CancellationToken) {
    let places = Arc::new(Semaphore::new(LOOPBACK));
    loop {
        let accepted = async { (places.clone().acquire_owned().await, listener.accept().await) };
        let accepted = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = accepted => accepted,
        };
        let (Ok(place), Ok((stream, address))) = accepted else {
            // Without descriptors the next try fails at once as well.
            sleep(REST).await;
            continue;
        };
        stream.set_nodelay(true).ok();
        let (portal, from) = (portal.clone(), Connection { address: address.ip(), tls: false });
        tokio::spawn(async move {
            portal.serve(stream, from, None).await;
            drop(place);
        });
    }
}

/// What the gateway does with the connection of an agent.
pub fn link(agents: Agents, cancel: CancellationToken) -> Sink {
    Arc::new(move |stream, peer| {
        let (agents, cancel) = (agents.clone(), cancel.clone());
        let caller = match peer.node.as_ref().map(|(cluster, node)| (cluster.parse(), node.parse())) {
            None => None,
            Some((Ok(cluster), Ok(node))) => Some(Caller { cluster, node }),
            // A certificate of ours that names no cluster and node of ours: nobody to speak to.
            Some(_) => return,
        };
        tokio::spawn(async move { agents.serve(stream, caller, cancel).await });
    })
}
