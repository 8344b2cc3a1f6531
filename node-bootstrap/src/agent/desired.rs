//! From the platform's words and the user's request to one decided node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use node_linux::files;
use node_protocol::NodeConfig;

use super::{AgentError, NETWORK, SERVICES};
use crate::config::Paths;
use crate::connect::Dialer;
use crate::guard::Guard;
use crate::ledger::Membership;
use crate::spec::{ApiServer, Layout, Network, NodeSpec, node_address};
use crate::tunnel::target::Targets;
use crate::{kubelet, machine, pki};

fn net(field: &str, text: &str) -> Result<ipnet::Ipv4Net, AgentError> {
    text.parse().map_err(|_| AgentError::Config(format!("{field} {text:?} is not a network")))
}

/// Where the node's address is on the machine.
pub(super) fn node_ip(config: &NodeConfig) -> Result<Ipv4Addr, AgentError> {
    Ok(node_address(net("pod_cidr", &config.pod_cidr)?))
}

/// Where the tunnel may lead.
pub(super) fn targets(config: &NodeConfig, membership: &Membership) -> Result<Targets, AgentError> {
    let (pods, services) =
        (net("cluster_pod_cidr", &config.cluster_pod_cidr)?, net("service_cidr", &config.service_cidr)?);
    Ok(Targets::new(&membership.node_name, node_ip(config)?, pods, services))
}

/// The node as the platform and the user want it; its parts are filled in later. Writes the two CA files.
pub(super) fn spec(config: &NodeConfig, membership: &Membership, paths: &Paths) -> Result<NodeSpec, AgentError> {
    let layout = Layout::joined(paths);
    let (ca_file, client_ca_file) = (layout.etc.join("api-ca.crt"), layout.etc.join("client-ca.crt"));
    files::write_if_changed(&ca_file, config.api_ca.as_bytes(), 0o644)?;
    files::write_if_changed(&client_ca_file, config.client_ca.as_bytes(), 0o644)?;
    let dialer = Dialer::from_env(&config.server)?;
    let network = network_of(config)?;
    clash(&dialer, &network)?;
    let mut labels: BTreeMap<String, String> = membership.labels.clone();
    // The platform's come last: they say what is so.
    labels.extend(config.labels.clone());
    Ok(NodeSpec {
        layout,
        cgroup_root: "/".into(),
        services_cgroup: SERVICES.into(),
        node_name: membership.node_name.clone(),
        node_ip: node_ip(config)?.into(),
        api: ApiServer {
            url: format!("https://{}", config.api_address),
            tls_server_name: None,
            ca_file,
            client_ca_file,
        },
        identities: pki::Store::new(paths.pki()).identities(),
        network,
        labels,
        sandbox_image: String::new(),
        images: Vec::new(),
        programs_digest: String::new(),
        kubelet_config: if shares_its_disk(|name| std::env::var(name).ok()) {
            kubelet::sharing()
        } else {
            kubelet::reserved()
        },
        // By default kube-proxy opens node ports on the node's address alone, and nobody outside reaches that.
        kube_proxy_config: serde_json::json!({"nodePortAddresses": ["0.0.0.0/0"]}),
        kubelet_args: Vec::new(),
        registration: config.registration,
        proxy: proxy_for_registries(config, |name| std::env::var(name).ok()),
    })
}

/// A machine container has its disk, and its memory, together with the platform and other machines.
fn shares_its_disk(variable: impl Fn(&str) -> Option<String>) -> bool {
    variable("container").is_some_and(|manager| manager == "pilothouse")
}

fn network_of(config: &NodeConfig) -> Result<Network, AgentError> {
    Ok(Network {
        pod_cidr: net("pod_cidr", &config.pod_cidr)?,
        cluster_pod_cidr: net("cluster_pod_cidr", &config.cluster_pod_cidr)?,
        service_cidr: net("service_cidr", &config.service_cidr)?,
        dns: config.dns_ip.parse().ok(),
        masquerade: true,
        name: NETWORK.into(),
        api: config.api_address.parse().ok(),
    })
}

/// What looks after the node's network while it lives.
pub(super) fn guard(config: &NodeConfig, paths: &Paths) -> Result<Guard, AgentError> {
    let network = network_of(config)?;
    let addresses = network.api.map(|api| api.ip()).into_iter().chain([node_ip(config)?.into()]).collect();
    Ok(Guard { network, addresses, layout: Layout::joined(paths) })
}

/// The proxy settings for containerd, with what lies inside the cluster exempt.
fn proxy_for_registries(config: &NodeConfig, variable: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let get = |name: &str| variable(name).or_else(|| variable(&name.to_lowercase())).filter(|text| !text.is_empty());
    let proxies = ["HTTPS_PROXY", "HTTP_PROXY"].into_iter().filter_map(|name| Some((name.to_owned(), get(name)?)));
    let mut settings: Vec<_> = proxies.collect();
    if !settings.is_empty() {
        let inside =
            [&config.cluster_pod_cidr, &config.service_cidr, ".svc", ".cluster.local", "127.0.0.1", "localhost"];
        let inside = inside.map(ToString::to_string).into_iter();
        let exempt: Vec<String> = get("NO_PROXY").into_iter().chain(inside).collect();
        settings.push(("NO_PROXY".to_owned(), exempt.join(",")));
    }
    settings
}

/// A machine whose way to the gateway leaves from an address in the pods' or services' range would lose it with the first pod.
fn clash(dialer: &Dialer, network: &Network) -> Result<(), AgentError> {
    let Some(IpAddr::V4(own)) = machine::address_towards(dialer.first_hop().parse::<SocketAddr>().ok()) else {
        return Ok(());
    };
    if own == node_address(network.pod_cidr) {
        return Ok(()); // the node's own, where the machine has no other
    }
    outside(own, network)
}

fn outside(own: Ipv4Addr, network: &Network) -> Result<(), AgentError> {
    for (what, range) in [("pod", network.cluster_pod_cidr), ("service", network.service_cidr)] {
        if range.contains(&own) {
            return Err(AgentError::Config(format!(
                "this machine's address {own} lies in the cluster's {what} range {range}; use a cluster with another range"
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
            labels: BTreeMap::from([("pool".into(), "web".into())]),
            ..NodeConfig::default()
        }
    }

    fn membership() -> Membership {
        let labels = BTreeMap::from([("mine".into(), "1".into()), ("pool".into(), "mine".into())]);
        Membership {
            node_id: "nod_x".into(),
            cluster_id: "cls_x".into(),
            node_name: "n1".into(),
            labels,
            token_id: String::new(),
        }
    }

    #[test]
    fn the_platforms_words_become_a_node() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        std::fs::create_dir_all(Layout::joined(&paths).etc).unwrap();
        let spec = spec(&config(), &membership(), &paths).unwrap();
        assert_eq!(spec.api.tls_server_name, None, "the address is one of the API server's names");
        assert_eq!(spec.api.url, "https://198.18.0.1:6443", "through the node's own link");
        assert_eq!(spec.node_ip.to_string(), "10.244.3.1");
        assert_eq!(spec.kube_proxy_config["nodePortAddresses"][0], "0.0.0.0/0");
        assert_eq!((spec.labels.len(), spec.labels["pool"].as_str()), (2, "web"), "the platform's own stay");
        assert_eq!(spec.kubelet_config, kubelet::reserved());
        assert!(shares_its_disk(|_| Some("pilothouse".into())) && !shares_its_disk(|_| Some("podman".into())));
        assert_eq!(spec.pods_cgroup(), "/kubepods");
    }

    #[test]
    fn an_address_inside_the_pods_range_is_refused() {
        let network = network_of(&config()).unwrap();
        let error = outside("10.244.9.7".parse().unwrap(), &network).unwrap_err();
        assert!(error.to_string().contains("another range"), "{error}");
        assert!(outside("10.96.3.1".parse().unwrap(), &network).is_err());
        assert!(outside("192.0.2.7".parse().unwrap(), &network).is_ok());
    }

    #[test]
    fn a_registry_is_reached_by_the_proxy_and_the_cluster_is_not() {
        let variable = |name: &str| match name {
            "https_proxy" => Some("http://192.0.2.9:3128".to_owned()),
            "NO_PROXY" => Some("registry.example".to_owned()),
            _ => None,
        };
        let settings = proxy_for_registries(&config(), variable);
        assert_eq!(settings[0], ("HTTPS_PROXY".to_owned(), "http://192.0.2.9:3128".to_owned()));
        assert!(settings[1].1.starts_with("registry.example,10.244.0.0/16,10.96.0.0/16,"), "{settings:?}");
        assert!(proxy_for_registries(&config(), |_| None).is_empty());
    }
}
