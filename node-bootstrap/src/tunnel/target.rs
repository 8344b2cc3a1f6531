//! Where a tunnel may lead: this node's own kubelet, the cluster's pods, the cluster's services. Nothing else, whoever asks: the
//! machine's own network is its owner's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use node_protocol::port;

/// What the agent dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// The node's name.
    pub node_name: String,
    /// The node's address, one of the pods' range.
    pub node_ip: Ipv4Addr,
    /// All pods of the cluster.
    pub pods: Ipv4Net,
    /// All services of the cluster.
    pub services: Ipv4Net,
    /// Where kubelet listens on this machine.
    pub kubelet: SocketAddr,
}

impl Targets {
    /// The targets of a node whose kubelet listens on its usual port.
    pub fn new(node_name: &str, node_ip: Ipv4Addr, pods: Ipv4Net, services: Ipv4Net) -> Self {
        let kubelet = SocketAddr::from((Ipv4Addr::LOCALHOST, port::KUBELET));
        Self { node_name: node_name.to_owned(), node_ip, pods, services, kubelet }
    }

    /// The address to dial for `host:port`, or a reason for people.
    pub fn resolve(&self, asked: &str) -> Result<SocketAddr, String> {
        let parsed = asked.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let (host, port) = parsed.ok_or_else(|| format!("{asked:?} is not host:port"))?;
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        let own = host.eq_ignore_ascii_case(&self.node_name) || address == Some(self.node_ip.into());
        match address {
            _ if own && port == port::KUBELET => Ok(self.kubelet),
            Some(IpAddr::V4(v4)) if self.pods.contains(&v4) || self.services.contains(&v4) => {
                Ok(SocketAddr::from((v4, port)))
            }
            _ => {
                Err(format!("node {} does not connect to {asked}: only its kubelet, pods and services", self.node_name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kubelet_pods_and_services_are_reached() {
        let (pods, services) = ("10.244.0.0/16".parse().unwrap(), "10.96.0.0/16".parse().unwrap());
        let targets = Targets::new("web-1", "10.244.3.1".parse().unwrap(), pods, services);
        let kubelet = "127.0.0.1:10250".parse().unwrap();
        for (asked, wanted) in [
            ("web-1:10250", kubelet),
            ("WEB-1:10250", kubelet),
            ("10.244.3.1:10250", kubelet),
            // A pod on the machine's own network has the node's address.
            ("10.244.3.1:8080", "10.244.3.1:8080".parse().unwrap()),
            ("10.244.9.9:80", "10.244.9.9:80".parse().unwrap()),
            ("10.96.0.10:53", "10.96.0.10:53".parse().unwrap()),
        ] {
            assert_eq!(targets.resolve(asked), Ok(wanted), "{asked}");
        }
        for asked in [
            "web-1:22",
            "192.0.2.7:22",
            "192.0.2.7:10250",
            "127.0.0.1:10250",
            "localhost:10250",
            "169.254.169.254:80",
            "10.0.0.1:443",
            "example.com:443",
            "[::1]:10250",
            "",
            "web-1",
            "web-1:99999",
            "10.244.9.9:",
        ] {
            assert!(targets.resolve(asked).is_err(), "{asked}");
        }
    }
}
