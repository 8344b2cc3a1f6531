//! Gateways: processes that hold nodes' links, and reach each other.

use std::net::SocketAddr;

use ipnet::Ipv4Net;
use tenant_controlplane::name::NodeName;
use uuid::Uuid;

/// One gateway process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayInfo {
    /// Its id, of this process alone.
    pub id: Uuid,
    /// The instance it is of, whose processes follow each other.
    pub instance: Uuid,
    /// Where other gateways reach it.
    pub address: SocketAddr,
}

/// A node whose link is at a gateway that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedNode {
    /// Its name in Kubernetes.
    pub name: NodeName,
    /// Its pods' addresses.
    pub pod_cidr: Ipv4Net,
    /// The gateway's id.
    pub gateway: Uuid,
    /// The gateway's address.
    pub address: SocketAddr,
}
