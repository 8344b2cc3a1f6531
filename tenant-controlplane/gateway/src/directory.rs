//! What the gateway asks of the rest of the platform: which clusters and nodes there are.

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use rustls_pki_types::CertificateDer;

use crate::tunnel::target::Host;

/// Where a cluster's connections go and whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRoute {
    /// `cls_…`
    pub cluster_id: String,
    /// Where its API server listens; `None` while there is none.
    pub api: Option<SocketAddr>,
    /// The cluster's link CA: current and, during a rotation, previous.
    pub link_trust: Vec<CertificateDer<'static>>,
}

impl ClusterRoute {
    /// The cluster's label: its id behind the prefix.
    pub(crate) fn label(&self) -> &str {
        self.cluster_id.rsplit('_').next().unwrap_or_default()
    }
}

/// A node as the tunnel needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRoute {
    /// Its Kubernetes name.
    pub name: String,
    /// Its pods' addresses.
    pub pod_cidr: Ipv4Net,
}

/// A node whose tunnel is at another gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteLink {
    /// The node as the tunnel needs it.
    pub node: NodeRoute,
    /// The gateway's id: 32 hexadecimal digits.
    pub gateway: String,
    /// Where it is reached.
    pub address: SocketAddr,
}

impl RemoteLink {
    /// Whether this host is the node or one of its pods.
    pub(crate) fn owns(&self, host: &Host) -> bool {
        match host {
            Host::Node(name) => name.eq_ignore_ascii_case(&self.node.name),
            Host::Address(address) => self.node.pod_cidr.contains(address),
        }
    }
}

/// The directory could not answer; the gateway then uses the last answer it got.
#[derive(Debug, thiserror::Error)]
#[error("ask the directory")]
pub struct DirectoryError(#[source] Box<dyn Error + Send + Sync>);

impl DirectoryError {
    /// Wraps the reason.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// Looks up clusters and nodes, and is notified of links. "Not there" is `Ok(None)`; `Err` means "unknown just now".
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// The cluster with this label (the 26-character suffix of its id).
    async fn cluster(&self, label: &str) -> Result<Option<ClusterRoute>, DirectoryError>;
    /// The deleted cluster with this label, while nodes of it may not know yet that it is: a route without an API server.
    async fn deleted_cluster(&self, label: &str) -> Result<Option<ClusterRoute>, DirectoryError>;
    /// The node of that cluster; `None` also when it was removed.
    async fn node(&self, cluster_id: &str, node_id: &str) -> Result<Option<NodeRoute>, DirectoryError>;
    /// The name of the cluster's node in whose pod range this address lies.
    async fn owner(&self, cluster_id: &str, address: Ipv4Addr) -> Result<Option<String>, DirectoryError>;
    /// The cluster's nodes whose tunnels are at other gateways that are alive. Asked where there may be any ([`crate::Peers`]), for what
    /// no tunnel here leads to.
    async fn remote_links(&self, cluster_id: &str) -> Result<Vec<RemoteLink>, DirectoryError>;
    /// The node's tunnel came up or went away here. Called one at a time; the last call is how things stand.
    async fn link_changed(&self, cluster_id: &str, node_id: &str, connected: bool);
}
