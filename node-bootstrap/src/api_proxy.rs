//! The node-local API address: where kubelet, kube-proxy and, as `kubernetes.default`, pods find the cluster's API server. All of it goes
//! over the node's own link, so whoever cuts the link cuts the node.
//!
//! The bytes are the clients' own TLS with the API server; nothing here reads them. Pods and the machine's own processes have places of
//! their own, so that no pod keeps kubelet out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use node_linux::describe;
use node_protocol::alpn;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::link::{Link, LinkError};

/// Connections of pods at a time; more are refused.
const PODS: usize = 1024;
/// The same for the machine's own processes, host-network pods among them.
const OWN: usize = 256;

/// Places of the two kinds of clients.
struct Places {
    own: Arc<Semaphore>,
    pods: Arc<Semaphore>,
}

impl Places {
    fn new(own: usize, pods: usize) -> Self {
        Self { own: Arc::new(Semaphore::new(own)), pods: Arc::new(Semaphore::new(pods)) }
    }

    /// A place for a client at `peer`: a process of this machine comes from the address it dials.
    fn take(&self, peer: IpAddr, own: IpAddr) -> Option<OwnedSemaphorePermit> {
        let places = if peer == own { &self.own } else { &self.pods };
        Arc::clone(places).try_acquire_owned().ok()
    }
}

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
    let (places, own) = (Places::new(OWN, PODS), listener.local_addr()?.ip());
    loop {
        let (client, peer) = listener.accept().await?;
        let Some(place) = places.take(peer.ip(), own) else {
            abort(&client);
            continue;
        };
        let link = link.clone();
        tokio::spawn(async move {
            if let Err(error) = forward(client, &link).await {
                tracing::debug!(error = describe(&error), "api connection ended");
            }
            drop(place);
        });
    }
}

/// The client sees an abort, not an answer that ended.
fn abort(client: &TcpStream) {
    let _ = socket2::SockRef::from(client).set_linger(Some(Duration::ZERO));
}

async fn forward(mut client: TcpStream, link: &Link) -> Result<(), LinkError> {
    let dialled = link.dial(alpn::API).await;
    if dialled.is_err() {
        abort(&client);
    }
    let mut server = dialled?;
    let _ = client.set_nodelay(true);
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_do_not_keep_kubelet_out() {
        let (own, pod) = ([198, 18, 0, 1].into(), [10, 244, 0, 7].into());
        let places = Places::new(1, 2);
        let taken: Vec<_> = (0..3).map(|_| places.take(pod, own)).collect();
        assert_eq!(taken.iter().flatten().count(), 2);
        let kubelet = places.take(own, own);
        assert!(kubelet.is_some() && places.take(own, own).is_none());
        drop(taken);
        assert!(places.take(pod, own).is_some());
    }
}
