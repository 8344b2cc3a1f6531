//! What the agent itself sets in the node's network: forwarding, the masquerade table, the node-local API address.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use node_linux::tool::{ToolError, run_blocking};
use serde_json::Value;

use crate::spec::Network;

/// The agent's own nftables table, family `ip`.
pub const TABLE: &str = "pilothouse_node";

/// Tables that kube-proxy and the port mapper make; only `reset` on a joined machine touches them.
pub const CHILDREN_TABLES: [(&str, &str); 4] =
    [("ip", "kube-proxy"), ("ip6", "kube-proxy"), ("ip", "cni_hostport"), ("ip6", "cni_hostport")];

/// The sysctl that lets packets pass from one interface to another.
pub const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// A command that set something in the network failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// `nft` or `ip`.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A sysctl could not be written.
    #[error("write {FORWARD}")]
    Forward(#[source] std::io::Error),
}

/// The nftables text that replaces the agent's table in one transaction.
pub fn ruleset(network: &Network) -> String {
    let mut text = format!("table ip {TABLE}\ndelete table ip {TABLE}\n");
    if network.masquerade {
        let (own, all) = (network.pod_cidr, network.cluster_pod_cidr);
        text.push_str(&format!(
            "table ip {TABLE} {{\n  chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n    \
             ip saddr {own} ip daddr != {all} ip daddr != 224.0.0.0/4 masquerade\n  }}\n}}\n"
        ));
        text.push_str(&counting("forward", &format!("ip saddr {own} meta l4proto {{ tcp, udp }}")));
        if let Some(api) = network.api {
            let (address, port) = (api.ip(), api.port());
            text.push_str(&counting("input", &format!("ip saddr {own} ip daddr {address} tcp dport {port}")));
        }
    }
    text
}

/// Counts new connections in the first and in the last chain at a hook: whose are missing in the last were dropped between them. Others'
/// chains stand at priorities from -300 (raw) to 300 (Linux, `enum nf_ip_hook_priorities`).
fn counting(hook: &str, what: &str) -> String {
    let chain = |name: &str, priority: i32| {
        format!(
            "  counter {hook}_{name} {{ packets 0 bytes 0 }}\n  chain {hook}_{name} {{\n    type filter hook {hook} priority {priority}; \
             policy accept;\n    {what} ct state new counter name \"{hook}_{name}\"\n  }}\n"
        )
    };
    format!("table ip {TABLE} {{\n{}{}}}\n", chain("new", -350), chain("passed", 350))
}

/// New connections, as the first and the last chain at a hook counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Of pods through this machine.
    pub forward: (u64, u64),
    /// Of pods to the node-local API address.
    pub api: (u64, u64),
}

/// Reads the agent's counters.
pub fn counters() -> Result<Counters, NetworkError> {
    let listed: Value = serde_json::from_str(&list(&["counters", "table", "ip", TABLE])?).unwrap_or_default();
    let packets = |name: &str| {
        let all = listed["nftables"].as_array().into_iter().flatten().map(|item| &item["counter"]);
        let found = all.into_iter().find(|counter| counter["name"] == name);
        found.and_then(|counter| counter["packets"].as_u64()).unwrap_or_default()
    };
    let pair = |hook: &str| (packets(&format!("{hook}_new")), packets(&format!("{hook}_passed")));
    Ok(Counters { forward: pair("forward"), api: pair("input") })
}

/// `nft -j list …`: JSON as libnftables-json(5) says.
pub fn list(what: &[&str]) -> Result<String, NetworkError> {
    Ok(run_blocking(&[&["nft", "-j", "list"][..], what].concat(), "")?)
}

/// Every table of this network, one a line: `table ip filter`.
pub fn tables() -> Result<String, NetworkError> {
    Ok(run_blocking(&["nft", "list", "tables"], "")?)
}

/// Which of the addresses are not on `lo`.
pub fn missing_addresses(wanted: &[IpAddr]) -> Result<Vec<IpAddr>, NetworkError> {
    let there = run_blocking(&["ip", "-o", "address", "show", "dev", "lo"], "")?;
    let is_there = |address: &IpAddr| there.split_whitespace().any(|word| word == host_prefix(*address));
    Ok(wanted.iter().copied().filter(|address| !is_there(address)).collect())
}

/// Puts the agent's table in force.
pub fn set_table(network: &Network) -> Result<(), NetworkError> {
    apply_rules(&ruleset(network))
}

/// Applies the table and lets packets through. Returns the sysctl's former value when it changed. Blocks for some milliseconds.
pub fn apply(network: &Network) -> Result<Option<String>, NetworkError> {
    set_table(network)?;
    forward()
}

/// Lets packets through. Returns the former value when it changed.
pub fn forward() -> Result<Option<String>, NetworkError> {
    let before = fs::read_to_string(FORWARD).unwrap_or_default().trim().to_owned();
    if before == "1" {
        return Ok(None);
    }
    fs::write(FORWARD, "1").map_err(NetworkError::Forward)?;
    Ok(Some(before))
}

/// Removes a table; absent is fine.
pub fn remove_table(family: &str, name: &str) -> Result<(), NetworkError> {
    // "table" first makes the deletion succeed when there is none.
    apply_rules(&format!("table {family} {name}\ndelete table {family} {name}\n"))
}

/// Gives rules to nftables, all of them or none.
fn apply_rules(rules: &str) -> Result<(), NetworkError> {
    Ok(run_blocking(&["nft", "-f", "-"], rules).map(drop)?)
}

fn host_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// Puts an address on `lo`: the node's own, or the API server's node-local one.
pub fn add_address(address: IpAddr) -> Result<(), NetworkError> {
    Ok(run_blocking(&["ip", "addr", "replace", &host_prefix(address), "dev", "lo"], "").map(drop)?)
}

/// Takes an address off `lo`; absent is fine.
pub fn remove_address(address: &str) -> Result<(), NetworkError> {
    let Ok(ip) = address.parse::<IpAddr>() else { return Ok(()) };
    let present = Path::new("/sys/class/net/lo").exists();
    match run_blocking(&["ip", "addr", "del", &host_prefix(ip), "dev", "lo"], "") {
        Err(ToolError::Failed { stderr, .. }) if stderr.contains("Cannot assign") || !present => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::sample;

    #[test]
    fn the_table_masquerades_only_what_leaves_the_cluster() {
        let mut network = sample().network;
        let text = ruleset(&network);
        assert!(text.contains("ip saddr 10.244.3.0/24 ip daddr != 10.244.0.0/16"));
        assert!(
            text.starts_with("table ip pilothouse_node\ndelete table ip pilothouse_node\n"),
            "replaced in one transaction"
        );
        network.masquerade = false;
        assert!(!ruleset(&network).contains("masquerade"));
    }
}
