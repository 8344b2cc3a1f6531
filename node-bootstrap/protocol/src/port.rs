//! TCP ports on a node, and of API servers.

/// Where an API server listens, in its pod and at a node's local address.
pub const API_SERVER: u16 = 6443;
/// kubelet's API: logs, exec, metrics.
pub const KUBELET: u16 = 10250;
/// kubelet's health, on loopback.
pub const KUBELET_HEALTH: u16 = 10248;
/// kube-proxy's metrics, on loopback.
pub const KUBE_PROXY_METRICS: u16 = 10249;
/// kube-proxy's health.
pub const KUBE_PROXY_HEALTH: u16 = 10256;

/// What a machine must have free to become a node.
pub const NODE: [u16; 5] = [API_SERVER, KUBELET, KUBE_PROXY_HEALTH, KUBELET_HEALTH, KUBE_PROXY_METRICS];
