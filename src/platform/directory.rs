//! What the gateway must know, read from the store.

use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use gateway::{ClusterRoute, Directory, DirectoryError, NodeRoute};
use migrations::{Store, StoreError, WorkKind};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tenant_controlplane::id::{ClusterId, NodeId};
use tracing::warn;

/// The gateway's view of the store.
pub struct StoreDirectory {
    store: Store,
}

impl StoreDirectory {
    /// A view of `store`.
    pub fn new(store: Store) -> Arc<Self> {
        Arc::new(Self { store })
    }

    /// A lost link is the first sign of a machine that ended: its node is looked at now and not at its next turn.
    async fn remember(&self, node: NodeId, connected: bool) -> Result<(), StoreError> {
        self.store.nodes().set_link(node, connected).await?;
        if connected { Ok(()) } else { self.store.work().due(WorkKind::Node, node.uuid()).await }
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

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).collect()
}
