//! The embedded host: a Kubernetes cluster of one node on this machine, tenant zero of the platform.
//!
//! The same component specs that tenants get run here as supervised processes, and the machine joins as node by the same
//! agent, all in a network namespace and a cgroup of the instance's own.

pub mod control_plane;
pub mod identity;
pub mod images;
pub mod isolation;
pub mod node;
pub mod pki;
mod rights;
pub mod storage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bundle::Bundle;
use kube::Client;
use node_linux::sysctl;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::cgroup;
use crate::instance::{Addresses, Instance, remember_sysctls};
use crate::network;
use crate::progress::Progress;
use crate::supervise::Group;
use isolation::Wall;

/// The node's name inside the embedded host.
pub const NODE: &str = "host";
/// How long the API server may take to its first readiness.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the host is made of.
pub struct Host {
    /// Whose host it is.
    pub instance: Instance,
    /// Its addresses on this machine.
    pub addresses: Addresses,
    /// The components.
    pub bundle: Arc<Bundle>,
    wall: Wall,
    /// Everything that speaks to its API server, and that server.
    processes: Group,
    /// Its etcd, which must be the last to go: an API server that lost it does not end by itself.
    memory: Group,
}

impl Host {
    /// The host of an instance; nothing is started.
    pub fn new(instance: &Instance, addresses: Addresses, bundle: Arc<Bundle>, wall: Wall) -> Self {
        let (processes, memory) = (Group::default(), Group::default());
        Self { instance: instance.clone(), addresses, bundle, wall, processes, memory }
    }

    /// Where its API server answers.
    pub fn api(&self) -> SocketAddr {
        (self.addresses.inside(), control_plane::API_PORT).into()
    }

    /// Starts what is not running and waits until the node can take pods. Processes of an earlier run that was killed are
    /// ended first; pods keep running meanwhile.
    pub async fn start(&self, cancel: &CancellationToken, progress: &Progress) -> Result<Client> {
        cgroup::stop(&format!("{}/platform", self.instance.cgroup()), Duration::from_secs(5)).await?;
        network::ensure(&self.instance, self.addresses).await?;
        // Before the node: kubelet starts yesterday's pods at once, and sets what suits it.
        self.wall.raise().await?;
        remember_sysctls(&sysctl::KUBELET)?;
        let pki = pki::load_or_create(self)?;
        pki::write_files(self, &pki)?;
        storage::write_files(
            &self.instance.path("host/storage"),
            &self.instance.path("volumes"),
            &self.image("busybox")?,
        )?;
        control_plane::start(self, &pki)?;
        node::start(self)?;
        let client = control_plane::client(self).await?;
        progress.step("host API server", self.wait_ready(&client, cancel)).await?;
        rights::grant(&client).await?;
        storage::install(&client, &self.instance.path("host/storage")).await?;
        control_plane::start_storage(self)?;
        progress.step("host node", node::wait_ready(self, &client, cancel)).await?;
        Ok(client)
    }

    /// Stops the host's processes in order. Pods keep running.
    pub async fn stop(&self) {
        self.processes.stop().await;
        self.memory.stop().await;
    }

    /// The reference of a bundled image.
    pub fn image(&self, name: &str) -> Result<String> {
        let image = self.bundle.image_ref(name).with_context(|| format!("the bundle has no image \"{name}\""))?;
        Ok(image.to_string())
    }

    async fn wait_ready(&self, client: &Client, cancel: &CancellationToken) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let request = hyper::Request::get("/readyz").body(Vec::new())?;
            let last = match client.request_text(request).await {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            };
            if cancel.is_cancelled() || Instant::now() > end {
                let name = &self.instance.name;
                bail!(
                    "the host's API server is not ready ({last}): see `pilothouse logs --name {name} kube-apiserver` and `pilothouse logs --name {name} etcd`"
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}
