//! What the gateway must know, read from the store.

use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use gateway::{ClusterRoute, Directory, DirectoryError, NodeRoute, RemoteLink};
use migrations::{LinkedNode, Store, StoreError};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tenant_controlplane::id::{ClusterId, NodeId};
use tracing::warn;
use uuid::Uuid;

/// The gateway's view of the store.
pub struct StoreDirectory {
    store: Store,
    gateway: Uuid,
}

impl StoreDirectory {
    /// A view of `store`, as the gateway with this id has it.
    pub fn new(store: Store, gateway: Uuid) -> Arc<Self> {
        Arc::new(Self { store, gateway })
    }

    /// A lost link is the first sign of a machine that ended: its node is looked at now and not at its next turn.
    async fn remember(&self, node: NodeId, connected: bool) -> Result<(), StoreError> {
        if connected {
            return self.store.nodes().set_link(node, self.gateway).await;
        }
        // One that is at another gateway by now is not lost.
        self.store.nodes().clear_link(node, Some(self.gateway)).await.map(drop)
    }
}

/// An id that is no id names nothing.
fn ids(cluster: &str, node: &str) -> Option<(ClusterId, NodeId)> {
    Some((cluster.parse().ok()?, node.parse().ok()?))
}

fn absent_is_none<T>(outcome: Result<Option<T>, StoreError>) -> Result<Option<T>, DirectoryError> {
    match outcome {
        Err(StoreError::NotFound { .. }) => Ok(None),
        other => other.map_err(DirectoryError::new),
    }
}

#[async_trait]
impl Directory for StoreDirectory {
    async fn cluster(&self, label: &str) -> Result<Option<ClusterRoute>, DirectoryError> {
        let route = absent_is_none(self.store.clusters().route(label).await)?;
        Ok(route.map(|route| ClusterRoute {
            cluster_id: route.cluster.to_string(),
            api: route.endpoint.and_then(|endpoint| endpoint.parse().ok()),
            link_trust: certificates(&route.link_trust_pem.unwrap_or_default()),
        }))
    }

    async fn deleted_cluster(&self, label: &str) -> Result<Option<ClusterRoute>, DirectoryError> {
        let found = absent_is_none(self.store.tombstones().cluster(label).await)?;
        Ok(found.map(|deleted| ClusterRoute {
            cluster_id: deleted.cluster.to_string(),
            api: None,
            link_trust: certificates(&deleted.link_trust_pem),
        }))
    }

    async fn node(&self, cluster_id: &str, node_id: &str) -> Result<Option<NodeRoute>, DirectoryError> {
        let Some((cluster, node)) = ids(cluster_id, node_id) else { return Ok(None) };
        let route = absent_is_none(self.store.nodes().route(cluster, node).await)?;
        Ok(route.map(|route| NodeRoute { name: route.name.to_string(), pod_cidr: route.pod_cidr }))
    }

    async fn owner(&self, cluster_id: &str, address: Ipv4Addr) -> Result<Option<String>, DirectoryError> {
        let Ok(cluster) = cluster_id.parse::<ClusterId>() else { return Ok(None) };
        let nodes = self.store.nodes().of_cluster(cluster).await.map_err(DirectoryError::new)?;
        let own = nodes.iter().find(|node| !node.removed && node.pod_cidr.contains(&address));
        Ok(own.map(|node| node.name.to_string()))
    }

    async fn remote_links(&self, cluster_id: &str) -> Result<Vec<RemoteLink>, DirectoryError> {
        let Ok(cluster) = cluster_id.parse::<ClusterId>() else { return Ok(Vec::new()) };
        let linked = self.store.gateways().links_elsewhere(cluster, self.gateway).await.map_err(DirectoryError::new)?;
        Ok(linked.into_iter().map(remote_link).collect())
    }

    async fn link_changed(&self, _cluster_id: &str, node_id: &str, connected: bool) {
        let Ok(node) = node_id.parse::<NodeId>() else { return };
        match self.remember(node, connected).await {
            // The row of a removed node goes before its link does.
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => {
                warn!("remember that the link of {node} is {}: {error}", if connected { "up" } else { "down" })
            }
        }
    }
}

fn remote_link(linked: LinkedNode) -> RemoteLink {
    let node = NodeRoute { name: linked.name.to_string(), pod_cidr: linked.pod_cidr };
    RemoteLink { node, gateway: linked.gateway.simple().to_string(), address: linked.address }
}

/// The certificates of a PEM text; what is none is left out.
pub fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
}
