//! What an agent should make of its machine, from the rows as they are.
//!
//! The generation rises when anything else in it changes and stays when nothing does, also across restarts: agents refuse older ones, and
//! refuse other content under the same number.

use migrations::{Store, StoreError};
use node_protocol::{NodeConfig, Part as WirePart};
use sha2::{Digest, Sha256};
use tenant_controlplane::id::NodeId;
use tenant_controlplane::pki::ClusterPki;
use tenant_controlplane::spec::{API_PORT, NODE_LOCAL_API};

use super::Agents;
use crate::family::Family;
use crate::parts::Part;

/// The label on nodes that says which pool they are of.
const POOL_LABEL: &str = "pilothouse.dev/pool";

/// Where a node's generation is kept.
fn key(node: NodeId) -> String {
    format!("node-config/{node}")
}

/// Forgets a node's generation, with the node.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(store: &Store, node: NodeId) -> Result<(), StoreError> {
    store.settings().delete(&key(node)).await
}

fn wire(part: Part) -> WirePart {
    let Part { name, kind, version, sha256, size, image } = part;
    WirePart { name, kind, version, sha256, size, image }
}

/// Everything but the generation, in a form whose order is fixed.
fn content(config: &NodeConfig) -> String {
    let mut labels: Vec<_> = config.labels.iter().collect();
    labels.sort();
    let rest = NodeConfig { labels: std::collections::HashMap::new(), generation: 0, ..config.clone() };
    let digest = Sha256::digest(format!("{rest:?}{labels:?}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Agents {
    /// The node's configuration with its generation.
    pub(super) async fn desired(&self, own: &Family, pki: &ClusterPki) -> Result<NodeConfig, StoreError> {
        let config = self.undated(own, pki);
        let generation = self.generation(own.node.id, &content(&config)).await?;
        Ok(NodeConfig { generation, ..config })
    }

    fn undated(&self, own: &Family, pki: &ClusterPki) -> NodeConfig {
        let Family { node, pool, cluster } = own;
        let facts = &self.inner.facts;
        let mut parts = self.inner.parts.list(cluster.spec.version);
        parts.sort_by(|a, b| (&a.name, &a.sha256).cmp(&(&b.name, &b.sha256)));
        NodeConfig {
            generation: 0,
            kubernetes_version: cluster.spec.version.to_string(),
            node_name: node.name.to_string(),
            label: cluster.label(),
            domain: facts.domain.clone(),
            server: facts.machine_gateway.clone(),
            platform_ca: facts.platform_ca_pem.clone(),
            api_ca: pki.serving.trust_pem(),
            client_ca: pki.client.trust_pem(),
            pod_cidr: node.pod_cidr.to_string(),
            cluster_pod_cidr: cluster.spec.pod_cidr.to_string(),
            service_cidr: cluster.spec.service_cidr.to_string(),
            dns_ip: cluster.spec.dns_ip().to_string(),
            parts: parts.into_iter().map(wire).collect(),
            labels: [(POOL_LABEL.to_owned(), pool.name.to_string())].into(),
            removed: own.is_sent_away(),
            api_address: format!("{NODE_LOCAL_API}:{API_PORT}"),
        }
    }

    async fn generation(&self, node: NodeId, content: &str) -> Result<u64, StoreError> {
        let _one_at_a_time = self.inner.deciding.lock().await;
        let (settings, key) = (self.inner.store.settings(), key(node));
        let known = settings.get(&key).await?.unwrap_or_default();
        let (number, known) = known.split_once(' ').unwrap_or(("0", ""));
        let number: u64 = number.parse().unwrap_or(0);
        if known == content {
            return Ok(number);
        }
        let next = number.saturating_add(1);
        settings.put(&key, &format!("{next} {content}")).await?;
        Ok(next)
    }
}
