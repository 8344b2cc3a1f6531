//! Checks of what is around a node: its names, its ports, other Kubernetes software, its addresses.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

use crate::check::Check;

/// Programs that make a machine a Kubernetes node.
const RIVALS: [&str; 6] = ["kubelet", "k3s-agent", "k3s-server", "k0s", "rke2", "microk8s"];

/// Whether the machine has a name that tells it from others; `node` is what the node would be called.
pub fn hostname(hostname: &str, node: &str) -> Check {
    let observed = format!("{hostname} (node {node})");
    if hostname.is_empty() || hostname == "localhost" {
        return Check::warn("hostname", observed, "set a host name of its own, or use --node-name");
    }
    Check::pass("hostname", observed)
}

/// Whether the machine has an id (machine-id(5)).
pub fn machine_id(id: &str) -> Check {
    if id.len() == 32 {
        return Check::pass("machine-id", id);
    }
    Check::fail("machine-id", id, "systemd-machine-id-setup")
}

/// Whether ports are free that a node listens on; `taken` are those that are not.
pub fn ports(taken: &[u16]) -> Check {
    if taken.is_empty() {
        return Check::pass("ports", "free");
    }
    let taken: Vec<String> = taken.iter().map(u16::to_string).collect();
    let remedy = "stop what listens there (another kubelet or kube-proxy?)";
    Check::fail("ports", format!("taken: {}", taken.join(", ")), remedy)
}

/// Whether another process listens there.
pub fn is_taken(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// Whether the machine is a node already; `other` names the program that makes it one.
pub fn other_node(other: Option<&str>) -> Check {
    match other {
        None => Check::pass("other-node", "none"),
        Some(name) => Check::fail("other-node", name, "remove the other Kubernetes node software first"),
    }
}

/// Node software that shares this network namespace. One in another namespace (a cluster in containers) is no rival.
pub fn find_other_node() -> Option<String> {
    let own = fs::read_link("/proc/self/ns/net").ok()?;
    let entries = fs::read_dir("/proc").ok()?;
    let mut rivals = entries.flatten().filter_map(|entry| {
        let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned();
        let is_beside = fs::read_link(entry.path().join("ns/net")).is_ok_and(|namespace| namespace == own);
        (is_beside && RIVALS.contains(&name.as_str())).then_some(name)
    });
    rivals.next()
}

/// Whether others might reach the machine.
pub fn addresses(addresses: &[IpAddr]) -> Check {
    let shown: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    if addresses.iter().any(IpAddr::is_ipv4) {
        return Check::pass("address", shown.join(", "));
    }
    Check::fail("address", shown.join(", "), "give the machine an IPv4 address that is not loopback")
}

/// Whether containerd finds the file (`/etc/hosts`) that it copies into every pod.
pub fn hosts(path: &Path) -> Check {
    if path.is_file() {
        return Check::pass("hosts", format!("{} is there", path.display()));
    }
    Check::fail(
        "hosts",
        format!("{} is missing: containerd copies it into every pod, so none would start", path.display()),
        format!("make it: echo '127.0.0.1 localhost' > {}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn a_machine_on_which_no_pod_can_start_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        assert_eq!(hosts(&path).status, Verdict::Fail);
        fs::write(&path, "").unwrap();
        assert_eq!(hosts(&path).status, Verdict::Pass);
    }

    #[test]
    fn a_port_is_taken_while_somebody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(is_taken(address));
        drop(listener);
        assert!(!is_taken(address));
    }
}
