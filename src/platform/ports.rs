//! Ports of the gateway that lead to one cluster alone, for clients that cannot ask for a name: given when somebody first asks, open at
//! once, and again after every start.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use gateway::Gateway;
use migrations::Store;
use tenant_controlplane::id::ClusterId;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use crate::instance::PortRange;

/// Between two looks at which clusters have ports: those of deleted clusters are closed, those that were taken are tried again.
const SWEEP: Duration = Duration::from_secs(10);

/// The ports that are open.
pub struct ClusterPorts {
    store: Store,
    address: IpAddr,
    allowed: RangeInclusive<u16>,
    gateway: OnceLock<Gateway>,
    open: Mutex<HashMap<ClusterId, (u16, DropGuard)>>,
}

impl ClusterPorts {
    /// None open yet; they will be at `address`.
    pub fn new(store: Store, address: IpAddr, allowed: PortRange) -> Arc<Self> {
        let allowed = allowed.first..=allowed.last;
        Arc::new(Self { store, address, allowed, gateway: OnceLock::new(), open: Mutex::default() })
    }

    /// The port of a cluster, open.
    ///
    /// # Errors
    /// All ports are taken, or somebody else listens there.
    pub async fn of(&self, cluster: ClusterId) -> Result<u16> {
        let port = self.store.cluster_ports().allocate(cluster, &self.allowed).await?;
        self.serve(cluster, port).await?;
        Ok(port)
    }

    async fn serve(&self, cluster: ClusterId, port: u16) -> Result<()> {
        let mut open = self.open.lock().await;
        if open.get(&cluster).is_some_and(|(known, _)| *known == port) {
            return Ok(());
        }
        let gateway = self.gateway.get().context("the gateway has not begun")?;
        let address = SocketAddr::new(self.address, port);
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        let cancel = CancellationToken::new();
        gateway.serve_cluster(listener, cluster.suffix(), cancel.clone());
        open.insert(cluster, (port, cancel.drop_guard()));
        Ok(())
    }

    /// Keeps the ports open that clusters have, and no others, until `cancel`.
    pub async fn follow(self: Arc<Self>, gateway: Gateway, cancel: CancellationToken) {
        // It is set once: here.
        let _ = self.gateway.set(gateway);
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while cancel.run_until_cancelled(sweep.tick()).await.is_some() {
            if let Err(error) = self.sweep().await {
                warn!("look which clusters have ports of their own: {error:#}");
            }
        }
    }

    async fn sweep(&self) -> Result<()> {
        let mut wanted: HashMap<ClusterId, u16> = self.store.cluster_ports().all().await?.into_iter().collect();
        wanted.retain(|_, port| self.allowed.contains(port));
        self.open.lock().await.retain(|cluster, (port, _)| wanted.get(cluster).copied() == Some(*port));
        for (cluster, port) in wanted {
            if let Err(error) = self.serve(cluster, port).await {
                warn!("open the port {port} of {cluster}: {error:#}");
            }
        }
        Ok(())
    }
}
