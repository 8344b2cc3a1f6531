//! What an agent should make of its machine, from the rows as they are.
//!
//! The generation rises when anything else in it changes and stays when nothing does, whichever process decides: it stands in the node's
//! row beside the digest of the content, and is exchanged only against the one that was seen. Agents refuse older ones, and refuse other
//! content under the same number; so none below what the agent follows already is given out, also after an older database was restored.

use migrations::{ConfigVersion, StoreError};
use node_protocol::{NodeConfig, Part as WirePart};
use prost::Message;
use sha2::{Digest, Sha256};
use tenant_controlplane::pki::ClusterPki;
use tenant_controlplane::spec::{API_PORT, NODE_LOCAL_API};

use super::Agents;
use crate::node_context::NodeContext;
use crate::parts::Part;

/// The label on nodes that says which pool they are of.
const POOL_LABEL: &str = "pilothouse.dev/pool";

fn wire(part: Part) -> WirePart {
    let Part { name, kind, version, sha256, size, image } = part;
    WirePart { name, kind: kind.into(), version, sha256, size, image }
}

/// SHA-256 of a configuration as it travels, hex; its generation is not part of it.
fn digest(undated: &NodeConfig) -> String {
    Sha256::digest(undated.encode_to_vec()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The generation for content of this digest, where the row has `seen` and the agent follows `known`; `None` when the row is right.
fn next(seen: &ConfigVersion, digest: &str, known: u64) -> Option<u64> {
    let right = seen.digest == digest && seen.generation >= known;
    (!right).then(|| seen.generation.max(known).saturating_add(1))
}

impl Agents {
    /// The node's configuration with its generation, for an agent that follows `known` (0: none).
    ///
    /// # Errors
    /// [`StoreError`], also when the node goes meanwhile.
    pub(super) async fn desired(
        &self,
        own: &NodeContext,
        pki: &ClusterPki,
        known: u64,
    ) -> Result<NodeConfig, StoreError> {
        let (store, id) = (&self.inner.store, own.node.id);
        let known = known.min(i64::MAX.cast_unsigned());
        let mut newer = None;
        loop {
            let own = newer.as_ref().unwrap_or(own);
            let (config, seen) = (self.undated(own, pki), &own.node.config);
            let digest = digest(&config);
            let Some(generation) = next(seen, &digest, known) else {
                return Ok(NodeConfig { generation: seen.generation, ..config });
            };
            if store.nodes().set_config(id, (seen.generation, generation), &digest).await? {
                return Ok(NodeConfig { generation, ..config });
            }
            // Another process was there first, perhaps on newer rows.
            newer = Some(NodeContext::load(store, id).await?.ok_or(StoreError::NotFound { what: "node" })?);
        }
    }

    fn undated(&self, own: &NodeContext, pki: &ClusterPki) -> NodeConfig {
        let NodeContext { node, pool, cluster } = own;
        let installation = &self.inner.installation;
        let version = own.version();
        let mut parts = self.inner.parts.list(version);
        parts.sort_by(|a, b| (&a.name, &a.sha256).cmp(&(&b.name, &b.sha256)));
        NodeConfig {
            generation: 0,
            traceparent: String::new(),
            kubernetes_version: version.to_string(),
            node_name: node.name.to_string(),
            label: cluster.label(),
            domain: installation.domain.clone(),
            server: installation.machine_gateway.clone(),
            platform_ca: installation.platform_ca_pem.clone(),
            api_ca: pki.serving.trust_pem(),
            client_ca: pki.client.trust_pem(),
            pod_cidr: node.pod_cidr.to_string(),
            cluster_pod_cidr: cluster.spec.pod_cidr.to_string(),
            service_cidr: cluster.spec.service_cidr.to_string(),
            dns_ip: cluster.spec.dns_ip().to_string(),
            parts: parts.into_iter().map(wire).collect(),
            labels: [(POOL_LABEL.to_owned(), pool.name.to_string())].into(),
            registration: node.registration.number,
            api_address: format!("{NODE_LOCAL_API}:{API_PORT}"),
            signed: self.inner.parts.signed(version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_never_falls_and_rises_only_with_the_content() {
        let seen = ConfigVersion { generation: 5, digest: "a".into() };
        assert_eq!(next(&seen, "a", 0), None);
        assert_eq!(next(&seen, "a", 5), None);
        assert_eq!(next(&seen, "b", 5), Some(6));
        assert_eq!(next(&seen, "a", 7), Some(8), "an older database was restored, and the agent is further");
        assert_eq!(next(&ConfigVersion::default(), "a", 0), Some(1));
    }
}
