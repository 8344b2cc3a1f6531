//! What a person wants of a cluster, parsed: a value of [`ClusterSpec`] is always valid, so rendering it cannot fail.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::version::KubernetesVersion;

/// Pods' addresses when nothing else is asked for.
pub const DEFAULT_POD_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
/// Services' addresses when nothing else is asked for.
pub const DEFAULT_SERVICE_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
/// Where every node of a cluster finds the API server: an address on its loopback device, outside all pod and service ranges
/// (198.18.0.0/15 is reserved for benchmarks by RFC 2544; the API refuses loopback and link-local endpoints).
pub const NODE_LOCAL_API: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The port of every API server, and of [`NODE_LOCAL_API`].
pub const API_PORT: u16 = node_protocol::port::API_SERVER;

const MAX_LABELS: usize = 32;
const MAX_LABEL_LENGTH: usize = 63;

/// What a cluster should be. Fields are read freely; values are made by [`ClusterSpec::new`] and the `with_` methods or read from JSON,
/// which all check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawSpec")]
pub struct ClusterSpec {
    /// The version of its control plane.
    pub version: KubernetesVersion,
    /// Where pods' addresses come from; each node gets a /24 of it.
    pub pod_cidr: Ipv4Net,
    /// Where services' addresses come from.
    pub service_cidr: Ipv4Net,
    /// Control-plane pods, 1 to 5.
    pub replicas: u8,
    /// The owner's own words on the cluster, at most 32.
    pub labels: BTreeMap<String, String>,
}

/// The same without the guarantee: what JSON can hold.
#[derive(Deserialize)]
struct RawSpec {
    version: KubernetesVersion,
    pod_cidr: Option<Ipv4Net>,
    service_cidr: Option<Ipv4Net>,
    replicas: Option<u8>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Why a request cannot become a [`ClusterSpec`]. The messages are for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecError {
    /// The pod range is not a private network of a usable size.
    #[error("invalid pod CIDR {0}: choose a private network (10/8, 172.16/12, 192.168/16) from /12 to /23")]
    PodCidr(Ipv4Net),
    /// The service range is not a private network of a usable size.
    #[error("invalid service CIDR {0}: choose a private network (10/8, 172.16/12, 192.168/16) from /12 to /24")]
    ServiceCidr(Ipv4Net),
    /// Pods and services would share addresses.
    #[error("pod CIDR {pods} and service CIDR {services} overlap: choose disjoint CIDRs")]
    Overlap {
        /// The pod range.
        pods: Ipv4Net,
        /// The service range.
        services: Ipv4Net,
    },
    /// Not 1 to 5 replicas.
    #[error("{0} control plane replicas are out of range: choose 1 to 5")]
    Replicas(u8),
    /// Too many or too long labels.
    #[error("labels: at most 32, and keys and values of at most 63 characters; keys not empty")]
    Labels,
}

fn is_private(net: Ipv4Net) -> bool {
    let private = [([10, 0, 0, 0], 8), ([172, 16, 0, 0], 12), ([192, 168, 0, 0], 16)];
    private.iter().any(|(address, length)| Ipv4Net::new_assert(Ipv4Addr::from(*address), *length).contains(&net))
}

/// Whether a range is private, written with its network address, and its prefix is 12 to `longest`.
fn usable(net: Ipv4Net, longest: u8) -> bool {
    is_private(net) && net.trunc() == net && (12..=longest).contains(&net.prefix_len())
}

impl ClusterSpec {
    /// A cluster of that version with default ranges, one replica and no labels.
    pub fn new(version: KubernetesVersion) -> Self {
        let (pod_cidr, service_cidr) = (DEFAULT_POD_CIDR, DEFAULT_SERVICE_CIDR);
        Self { version, pod_cidr, service_cidr, replicas: 1, labels: BTreeMap::new() }
    }

    /// Sets both address ranges.
    ///
    /// # Errors
    /// [`SpecError`] when one is not private, has a wrong size, or both overlap.
    pub fn with_networks(mut self, pods: Ipv4Net, services: Ipv4Net) -> Result<Self, SpecError> {
        (self.pod_cidr, self.service_cidr) = (pods, services);
        self.checked()
    }

    /// Sets the owner's labels.
    ///
    /// # Errors
    /// [`SpecError::Labels`] beyond the limits.
    pub fn with_labels(mut self, labels: BTreeMap<String, String>) -> Result<Self, SpecError> {
        self.labels = labels;
        self.checked()
    }

    /// Sets the number of control-plane pods.
    ///
    /// # Errors
    /// [`SpecError::Replicas`] outside 1 to 5.
    pub fn with_replicas(mut self, replicas: u8) -> Result<Self, SpecError> {
        self.replicas = replicas;
        self.checked()
    }

    fn checked(self) -> Result<Self, SpecError> {
        let (pods, services) = (self.pod_cidr, self.service_cidr);
        let label_fits =
            |(key, value): (&String, &String)| !key.is_empty() && key.len().max(value.len()) <= MAX_LABEL_LENGTH;
        match () {
            () if !usable(pods, 23) => Err(SpecError::PodCidr(pods)),
            () if !usable(services, 24) => Err(SpecError::ServiceCidr(services)),
            () if pods.contains(&services) || services.contains(&pods) => Err(SpecError::Overlap { pods, services }),
            () if !(1..=5).contains(&self.replicas) => Err(SpecError::Replicas(self.replicas)),
            () if self.labels.len() > MAX_LABELS || !self.labels.iter().all(label_fits) => Err(SpecError::Labels),
            () => Ok(self),
        }
    }

    /// The service address at `offset` from the range's beginning; ranges hold at least 256.
    fn service_ip(&self, offset: u8) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_cidr.network()).saturating_add(u32::from(offset)))
    }

    /// The cluster DNS's service address: the tenth of the range, as kubeadm has it.
    pub fn dns_ip(&self) -> Ipv4Addr {
        self.service_ip(10)
    }

    /// The address of the service `kubernetes`: the first of the range, chosen by the API server itself.
    pub fn kubernetes_service_ip(&self) -> Ipv4Addr {
        self.service_ip(1)
    }
}

impl TryFrom<RawSpec> for ClusterSpec {
    type Error = SpecError;

    fn try_from(raw: RawSpec) -> Result<Self, SpecError> {
        let pod_cidr = raw.pod_cidr.unwrap_or(DEFAULT_POD_CIDR);
        let service_cidr = raw.service_cidr.unwrap_or(DEFAULT_SERVICE_CIDR);
        let replicas = raw.replicas.unwrap_or(1);
        Self { version: raw.version, pod_cidr, service_cidr, replicas, labels: raw.labels }.checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(pods: &str, services: &str) -> Result<ClusterSpec, SpecError> {
        let spec = ClusterSpec::new(KubernetesVersion::default());
        spec.with_networks(pods.parse().unwrap(), services.parse().unwrap())
    }

    #[test]
    fn well_known_addresses() {
        let spec = ClusterSpec::new(KubernetesVersion::default());
        assert_eq!(spec.dns_ip().to_string(), "10.96.0.10");
        assert_eq!(spec.kubernetes_service_ip().to_string(), "10.96.0.1");
    }

    #[test]
    fn ranges_are_checked() {
        assert!(networks("10.0.0.0/16", "172.20.0.0/24").is_ok());
        assert!(matches!(networks("8.8.0.0/16", "10.96.0.0/16"), Err(SpecError::PodCidr(_))));
        assert!(matches!(networks("10.1.0.0/24", "10.96.0.0/16"), Err(SpecError::PodCidr(_))));
        assert!(matches!(networks("10.1.2.3/16", "10.96.0.0/16"), Err(SpecError::PodCidr(_))));
        assert!(matches!(networks("10.1.0.0/16", "10.96.0.0/25"), Err(SpecError::ServiceCidr(_))));
        assert!(matches!(networks("10.96.0.0/12", "10.96.0.0/16"), Err(SpecError::Overlap { .. })));
    }

    #[test]
    fn json_round_trips_and_is_checked() {
        let spec = ClusterSpec::new(KubernetesVersion::default()).with_replicas(3).unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<ClusterSpec>(&json).unwrap(), spec);
        assert!(serde_json::from_str::<ClusterSpec>(r#"{"version":"1.36.3"}"#).is_ok());
        let error = serde_json::from_str::<ClusterSpec>(r#"{"version":"1.36.3","replicas":9}"#).unwrap_err();
        assert!(error.to_string().contains("choose 1 to 5"), "{error}");
    }
}
