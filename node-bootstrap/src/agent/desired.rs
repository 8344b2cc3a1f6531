//! From the platform's words and the user's wishes to one decided node.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use node_protocol::NodeConfig;

use super::{AgentError, NETWORK, SERVICES};
use crate::config::Paths;
use crate::connect::Dialer;
use crate::ledger::Membership;
use crate::spec::{ApiServer, Layout, Network, NodeSpec};
use crate::tunnel::target::Targets;
use crate::{files, machine, pki};

fn net(field: &str, text: &str) -> Result<ipnet::Ipv4Net, AgentError> {
    text.parse().map_err(|_| AgentError::Config(format!("{field} {text:?} is not a network")))
}

fn node_ip(config: &NodeConfig, membership: &Membership) -> Option<std::net::IpAddr> {
    let dialer = Dialer::from_env(&config.server).ok();
    let hop = dialer.and_then(|dialer| dialer.first_hop().parse::<SocketAddr>().ok());
    membership.node_ip.or_else(|| machine::address_towards(hop))
}

/// Where the tunnel may lead.
pub(super) fn targets(config: &NodeConfig, membership: &Membership) -> Result<Targets, AgentError> {
    let (pods, services) =
        (net("cluster_pod_cidr", &config.cluster_pod_cidr)?, net("service_cidr", &config.service_cidr)?);
    Ok(Targets::new(&membership.node_name, node_ip(config, membership), pods, services))
}

/// The node as the platform and the user want it; its parts are filled in later. Writes the two CA files.
pub(super) fn spec(config: &NodeConfig, membership: &Membership, paths: &Paths) -> Result<NodeSpec, AgentError> {
    let layout = Layout::joined(paths);
    let (ca_file, client_ca_file) = (layout.etc.join("api-ca.crt"), layout.etc.join("client-ca.crt"));
    files::write_if_changed(&ca_file, config.api_ca.as_bytes(), 0o644)?;
    files::write_if_changed(&client_ca_file, config.client_ca.as_bytes(), 0o644)?;
    let node_ip =
        node_ip(config, membership).ok_or_else(|| AgentError::Config("this machine has no usable address".into()))?;
    let network = network_of(config)?;
    if let std::net::IpAddr::V4(v4) = node_ip {
        clash(v4, &network)?;
    }
    let mut labels: BTreeMap<String, String> = config.labels.clone().into_iter().collect();
    labels.extend(membership.labels.clone());
    Ok(NodeSpec {
        layout,
        cgroup_root: "/".into(),
        services_cgroup: SERVICES.into(),
        node_name: membership.node_name.clone(),
        node_ip,
        api: ApiServer {
            url: format!("https://{}", config.server),
            tls_server_name: Some(format!("{}.node.{}", config.label, config.domain)),
            ca_file,
            client_ca_file,
        },
        identities: pki::Store::new(paths.pki()).identities(),
        network,
        labels,
        sandbox_image: String::new(),
        images: Vec::new(),
        programs_digest: String::new(),
        kubelet_config: serde_json::json!({}),
        kube_proxy_config: serde_json::json!({}),
        kubelet_args: Vec::new(),
    })
}

fn network_of(config: &NodeConfig) -> Result<Network, AgentError> {
    Ok(Network {
        pod_cidr: net("pod_cidr", &config.pod_cidr)?,
        cluster_pod_cidr: net("cluster_pod_cidr", &config.cluster_pod_cidr)?,
        service_cidr: net("service_cidr", &config.service_cidr)?,
        dns: config.dns_ip.parse().ok(),
        masquerade: true,
        name: NETWORK.into(),
    })
}

/// A node whose own address lies in the pods' or services' range could not be told from a pod.
fn clash(node_ip: std::net::Ipv4Addr, network: &Network) -> Result<(), AgentError> {
    for (what, range) in [("pod", network.cluster_pod_cidr), ("service", network.service_cidr)] {
        if range.contains(&node_ip) {
            let advice = "use --node-ip, or a cluster with another range";
            return Err(AgentError::Config(format!(
                "this machine's address {node_ip} lies in the {what} range {range}; {advice}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A configuration as the platform would send it.
    pub(in crate::agent) fn config() -> NodeConfig {
        NodeConfig {
            generation: 1,
            label: "01m7".into(),
            domain: "pilothouse.internal".into(),
            server: "192.0.2.1:8443".into(),
            pod_cidr: "10.244.3.0/24".into(),
            cluster_pod_cidr: "10.244.0.0/16".into(),
            service_cidr: "10.96.0.0/16".into(),
            dns_ip: "10.96.0.10".into(),
            api_address: "198.18.0.1:6443".into(),
            labels: std::collections::HashMap::from([("pool".into(), "web".into())]),
            ..NodeConfig::default()
        }
    }

    fn membership() -> Membership {
        let labels = BTreeMap::from([("mine".into(), "1".into())]);
        let node_ip = "192.0.2.7".parse().ok();
        Membership { node_id: "nod_x".into(), cluster_id: "cls_x".into(), node_name: "n1".into(), node_ip, labels }
    }

    #[test]
    fn the_platforms_words_become_a_node() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        std::fs::create_dir_all(Layout::joined(&paths).etc).unwrap();
        let spec = spec(&config(), &membership(), &paths).unwrap();
        assert_eq!(spec.api.tls_server_name.as_deref(), Some("01m7.node.pilothouse.internal"));
        assert_eq!(spec.api.url, "https://192.0.2.1:8443");
        assert_eq!(spec.labels.len(), 2);
        assert_eq!(spec.pods_cgroup(), "/kubepods");
    }

    #[test]
    fn an_address_inside_the_pods_range_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        std::fs::create_dir_all(Layout::joined(&paths).etc).unwrap();
        let inside = Membership { node_ip: "10.244.3.7".parse().ok(), ..membership() };
        let error = spec(&config(), &inside, &paths).unwrap_err();
        assert!(error.to_string().contains("--node-ip"), "{error}");
    }
}
