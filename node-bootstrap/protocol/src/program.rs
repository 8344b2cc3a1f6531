//! Names of the programs that make a machine a node.

/// The node agent.
pub const AGENT: &str = "pilothouse-node";

/// The programs of a node, each a part of the bundle of kind [`Binary`](crate::PartKind::Binary): what the platform hands out and what the
/// agent takes, in the order of need.
pub const ALL: [&str; 10] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "ptp",
    "host-local",
    "loopback",
    "portmap",
    "kubelet",
    "kube-proxy",
];
