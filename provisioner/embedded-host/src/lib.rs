//! The embedded host: a Kubernetes cluster of one node on this machine, tenant zero of the platform.
//!
//! The same component specs that tenants get run here as supervised processes, and the machine joins as node by the same
//! agent, all in a network namespace and a cgroup of the instance's own.

pub mod cgroup;
pub mod control_plane;
mod error;
pub mod images;
pub mod isolation;
pub mod network;
pub mod node;
mod pki;
mod rights;
pub mod site;
pub mod storage;
pub mod supervise;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bundle::Bundle;
use kube::Client;
use node_linux::sysctl;
use tenant_controlplane::pki::KeySource;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use error::{HostError, Result};

use error::DuringStep;
use isolation::Wall;
use site::{Site, remember_sysctls};
use supervise::Group;

/// The node's name inside the embedded host.
pub const NODE: &str = "host";
/// How long the API server may take to its first readiness.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the host is made of.
pub struct Host {
    /// Where it is.
    pub site: Site,
    /// The components.
    pub bundle: Arc<Bundle>,
    /// Where its key pairs come from.
    pub keys: Arc<dyn KeySource>,
    wall: Wall,
    /// Everything that speaks to its API server, and that server.
    processes: Group,
    /// Its etcd, which must be the last to go: an API server that lost it does not end by itself.
    memory: Group,
}

impl Host {
    /// The host of a site; nothing is started.
    pub fn new(site: Site, bundle: Arc<Bundle>, keys: Arc<dyn KeySource>, wall: Wall) -> Self {
        let (processes, memory) = (Group::default(), Group::default());
        Self { site, bundle, keys, wall, processes, memory }
    }

    /// Where its API server answers.
    pub fn api(&self) -> SocketAddr {
        (self.site.addresses.inside(), control_plane::API_PORT).into()
    }

    /// Starts what is not running. Processes of an earlier run that was killed are ended first; pods keep running meanwhile. Answers a
    /// client of its API server, which need not answer yet.
    ///
    /// # Errors
    /// [`HostError`] of the first step that fails.
    pub async fn start(&self) -> Result<Client> {
        cgroup::stop(&format!("{}/platform", self.site.cgroup()), Duration::from_secs(5)).await?;
        network::ensure(&self.site).await?;
        // Before the node: kubelet starts yesterday's pods at once, and sets what suits it.
        self.wall.raise().await?;
        remember_sysctls(&sysctl::KUBELET)?;
        let pki = pki::load_or_create(self)?;
        pki::write_files(self, &pki)?;
        let (files, volumes) = (self.site.path("host/storage"), self.site.path("volumes"));
        storage::write_files(&files, &volumes, &self.image("busybox")?)?;
        control_plane::start(self, &pki)?;
        node::start(self)?;
        control_plane::client(self).await
    }

    /// Gives the platform its rights and starts what needs an API server that is ready ([`Host::wait_ready`]).
    ///
    /// # Errors
    /// [`HostError`] of the first step that fails.
    pub async fn start_storage(&self, client: &Client) -> Result<()> {
        rights::grant(client).await?;
        storage::install(client, &self.site.path("host/storage")).await?;
        control_plane::start_storage(self)
    }

    /// Stops the host's processes in order. Pods keep running.
    pub async fn stop(&self) {
        self.processes.stop().await;
        self.memory.stop().await;
    }

    /// The reference of a bundled image.
    ///
    /// # Errors
    /// [`HostError::Step`] without such an image.
    pub fn image(&self, name: &str) -> Result<String> {
        let image = self.bundle.image_ref(name).during_step(|| format!("the bundle has no image \"{name}\""))?;
        Ok(image.to_string())
    }

    /// Waits until its API server is ready.
    ///
    /// # Errors
    /// [`HostError::Unfit`] when it is not after five minutes, or `cancel` comes first.
    pub async fn wait_ready(&self, client: &Client, cancel: &CancellationToken) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            let request = hyper::Request::get("/readyz").body(Vec::new()).during("make a request")?;
            let last = match client.request_text(request).await {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            };
            if cancel.is_cancelled() || Instant::now() > end {
                let name = &self.site.name;
                return Err(HostError::Unfit(format!(
                    "the host's API server is not ready ({last}): see `pilothouse logs --name {name} kube-apiserver` and `pilothouse logs --name {name} etcd`"
                )));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}
