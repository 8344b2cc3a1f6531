//! What the portal is given by whoever composes it: the store, its own addresses, and the one hand it may use.

use async_trait::async_trait;
use migrations::{Kubeconfig, Store};
use std::path::PathBuf;
use std::sync::Arc;
use tenant_controlplane::status::KubeconfigEndpoint;
use tenant_controlplane::version::KubernetesVersion;

/// Everything the portal needs to know.
#[derive(Clone)]
pub struct PortalConfig {
    /// The store.
    pub store: Store,
    /// Where people reach the portal, without a slash at the end: `https://203.0.113.7:8443`.
    pub public_url: String,
    /// The gateway as people and machines reach it: `ip:port` or `name:port`.
    pub gateway_address: String,
    /// The DNS domain of the instance, for server names.
    pub domain: String,
    /// The platform's CA, which joining machines pin.
    pub platform_ca_pem: String,
    /// Kubernetes versions on offer; the first is the default.
    pub versions: Vec<KubernetesVersion>,
    /// The agent that joining machines fetch.
    pub agent: AgentFiles,
    /// What this instance can do.
    pub capabilities: Capabilities,
    /// How many requests a caller may send.
    pub limits: RequestLimits,
    /// Signs kubeconfigs.
    pub issuer: Arc<dyn Issuer>,
}

/// How many requests, to REST and to pages, a person may send in a minute; their tokens of one organization together so many again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Requests that look at something.
    pub reads: u32,
    /// Requests that change something.
    pub writes: u32,
    /// Clusters made; each counts as a write too.
    pub cluster_creates: u32,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { reads: 600, writes: 120, cluster_creates: 10 }
    }
}

/// The static agent binary, its checksum, and the key that it is to trust.
#[derive(Clone, Debug)]
pub struct AgentFiles {
    /// The file; read at the first download and kept in memory.
    pub path: PathBuf,
    /// SHA-256 of it, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The key that signed the list in which the agent and all parts of nodes stand, `ed25519:…`.
    pub signing_key: String,
    /// What `uname -m` says on machines it was built for, such as `x86_64`.
    pub machine: String,
}

/// What this instance can do beyond the least.
#[derive(Clone, Copy, Debug, Default)]
pub struct Capabilities {
    /// Machine containers on the platform's own machine (pool kind `local`).
    pub local: LocalMachines,
    /// Whether clusters' names resolve to the gateway: the operator has chosen a domain and set a wildcard record.
    pub dns: bool,
    /// Whether a cluster may have a port of its own on the gateway.
    pub ports: bool,
}

/// Whether there are machine containers on the platform's own machine, and what keeps them from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalMachines {
    /// There are none.
    #[default]
    Off,
    /// Root in one is root on the platform host. So only the installation's first organization has them, and in a cluster with
    /// some only admins and owners get kubeconfigs above `view`.
    Trusted,
    /// Each has a user namespace of its own and reaches nothing of the platform host but the gateway; for every organization.
    Isolated,
}

/// Signs kubeconfigs. Lives outside, because the portal holds no tenant's key.
#[async_trait]
pub trait Issuer: Send + Sync + 'static {
    /// The kubeconfig file (YAML) for an issued row. It holds a private key: hand it on and forget it.
    ///
    /// # Errors
    /// [`IssueError::NotReady`] while the cluster has no certificates yet.
    async fn kubeconfig(&self, kubeconfig: &Kubeconfig, endpoint: KubeconfigEndpoint) -> Result<String, IssueError>;
}

/// Why no kubeconfig was signed.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The cluster has no certificates yet.
    #[error("the cluster has no certificates yet")]
    NotReady,
    /// There is no port to be had for it.
    #[error("{0}")]
    NoPort(String),
    /// Anything else.
    #[error("signing the kubeconfig failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}
