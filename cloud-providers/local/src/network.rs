//! The bridge that machines hang on, and the NAT that hides them: nothing outside can dial a machine.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;
use node_linux::sysctl;
use node_linux::tool::{run, run_with_input};

use crate::error::LocalError;
use crate::machine::resolver_addresses;

/// The bridge and its rules.
#[derive(Debug, Clone)]
pub struct Network {
    /// The bridge's name, at most 15 bytes.
    pub bridge: String,
    /// The machines' range; its first address is the bridge's.
    pub subnet: Ipv4Net,
    /// The nftables table (families `ip` and `ip6`) that is ours alone.
    pub table: String,
    /// Where the gateway is; then machines reach it, the resolvers and the internet, and nothing else. Without, they reach what this
    /// machine reaches.
    pub only: Option<SocketAddrV4>,
}

/// Rules that were set.
#[derive(Clone, Debug, Default)]
pub struct AppliedRules {
    /// As they were written.
    rules: String,
    /// As nftables listed them then.
    listed: Option<String>,
}

impl Network {
    /// The bridge's own address, the machines' way out.
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.hosts().next().unwrap_or(self.subnet.addr())
    }

    /// The bridge's own MAC address, locally administered. Without one it would take the lowest of its ports': whenever that machine goes, all
    /// others would lose their way out until they ask for the address again, half a minute later.
    fn mac(&self) -> String {
        let [a, b, c, d] = self.gateway().octets();
        format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }

    /// Makes bridge and rules, or finds them. Runs any number of times.
    pub async fn ensure(&self) -> Result<(), LocalError> {
        for value in sysctl::LOCAL_MACHINES {
            sysctl::raise(value)?;
        }
        if run(&["ip", "link", "show", &self.bridge]).await.is_err() {
            run(&["ip", "link", "add", &self.bridge, "type", "bridge"]).await?;
        }
        let address = format!("{}/{}", self.gateway(), self.subnet.prefix_len());
        run(&["ip", "address", "replace", &address, "dev", &self.bridge]).await?;
        run(&["ip", "link", "set", &self.bridge, "address", &self.mac(), "up"]).await?;
        self.apply_rules().await.map(drop)
    }

    /// The rules for the networks and resolvers that this machine has now.
    fn current_rules(&self) -> String {
        match self.only {
            None => self.rules(),
            Some(gateway) => self.isolated_rules(gateway, &resolver_addresses(), &own_networks(&self.bridge)),
        }
    }

    /// Sets the rules anew, in one transaction. Returns them.
    pub async fn apply_rules(&self) -> Result<AppliedRules, LocalError> {
        let rules = self.current_rules();
        run_with_input(&["nft", "-f", "-"], &rules).await?;
        Ok(AppliedRules { rules, listed: self.list_rules().await })
    }

    /// Sets the rules again where somebody changed or flushed them, as a restart of Debian's `nftables` service does, or where this machine
    /// is in other networks by now than when `applied` was set. Returns what is set.
    pub async fn keep_rules(&self, applied: &AppliedRules) -> Result<AppliedRules, LocalError> {
        let changed = self.list_rules().await != applied.listed;
        if !changed && self.current_rules() == applied.rules {
            return Ok(applied.clone());
        }
        if changed && applied.listed.is_some() {
            tracing::warn!(table = self.table, "somebody changed the rules around local machines; put back");
        }
        self.apply_rules().await
    }

    /// The tables as nftables has them, without counts; `None` where one is missing.
    async fn list_rules(&self) -> Option<String> {
        let families: &[&str] = if self.only.is_some() { &["ip", "ip6"] } else { &["ip"] };
        let mut listed = String::new();
        for family in families {
            listed += &run(&["nft", "--stateless", "list", "table", family, &self.table]).await.ok()?;
        }
        Some(listed)
    }

    /// Takes bridge and rules away.
    pub async fn remove(&self) {
        run(&["ip", "link", "delete", &self.bridge]).await.ok();
        for family in ["ip", "ip6"] {
            run(&["nft", "delete", "table", family, &self.table]).await.ok();
        }
    }

    /// Out with the machine's address, only answers back in, and never into the ranges of hosts (100.64.0.0/10 and
    /// 198.19.0.0/16). Link-local means
    /// this machine's own cloud (169.254.169.254 hands out its identity): its resolver answers, nothing else does.
    fn rules(&self) -> String {
        let (table, bridge, subnet) = (&self.table, &self.bridge, self.subnet);
        format!(
            "table ip {table}\ndelete table ip {table}\ntable ip {table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != \"{bridge}\" masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname \"{bridge}\" oifname != \"{bridge}\" ip daddr {{ 100.64.0.0/10, 198.19.0.0/16 }} drop
    iifname \"{bridge}\" ip daddr 169.254.0.0/16 meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname \"{bridge}\" ip daddr 169.254.0.0/16 drop
    oifname \"{bridge}\" iifname != \"{bridge}\" ct state established,related accept
    oifname \"{bridge}\" iifname != \"{bridge}\" drop
  }}
}}
"
        )
    }

    /// Out to the internet with the machine's address. Of this machine only the gateway and its resolvers answer; its other listeners,
    /// the networks it is in, private ranges (RFC 1918), shared ones (RFC 6598) and link-local ones are closed, and IPv6 altogether.
    fn isolated_rules(&self, gateway: SocketAddrV4, resolvers: &[Ipv4Addr], own: &[Ipv4Net]) -> String {
        let (table, bridge, subnet) = (&self.table, &self.bridge, self.subnet);
        let from = format!("iifname \"{bridge}\"");
        let mut open = vec![format!("{from} ip daddr {} tcp dport {} accept", gateway.ip(), gateway.port())];
        open.extend(
            resolvers.iter().map(|ip| format!("{from} ip daddr {ip} meta l4proto {{ tcp, udp }} th dport 53 accept")),
        );
        let open = open.join("\n    ");
        let closed = CLOSED.iter().map(ToString::to_string).chain(own.iter().map(ToString::to_string));
        let closed: Vec<String> = closed.map(|range| format!("{from} ip daddr {range} drop")).collect();
        let closed = closed.join("\n    ");
        format!(
            "table ip {table}\ndelete table ip {table}\ntable ip6 {table}\ndelete table ip6 {table}\ntable ip {table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != \"{bridge}\" masquerade
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    {from} ip saddr != {subnet} drop
    {from} ct state established,related accept
    {open}
    {from} drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    {from} ip saddr != {subnet} drop
    {open}
    {closed}
    oifname \"{bridge}\" ct state established,related accept
    oifname \"{bridge}\" drop
  }}
}}
table ip6 {table} {{
  chain input {{
    type filter hook input priority filter; policy accept;
    {from} drop
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    {from} drop
    oifname \"{bridge}\" drop
  }}
}}
"
        )
    }
}

/// What no isolated machine reaches: "this network", private, shared, loopback, link-local, protocol assignments, benchmarking,
/// multicast and reserved addresses (IANA special-purpose address registry).
const CLOSED: [&str; 11] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// The networks that this machine is in, by interfaces other than `bridge`.
fn own_networks(bridge: &str) -> Vec<Ipv4Net> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten().filter(|one| one.interface_name != bridge);
    let network = |one: nix::ifaddrs::InterfaceAddress| {
        let (address, mask) = (one.address?.as_sockaddr_in()?.ip(), one.netmask?.as_sockaddr_in()?.ip());
        Ipv4Net::with_netmask(address, mask).ok().map(|network| network.trunc())
    };
    let found: BTreeSet<Ipv4Net> = all.filter_map(network).filter(|network| network.prefix_len() > 0).collect();
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_reach_neither_hosts_nor_the_clouds_identity() {
        let subnet = "100.64.208.0/20".parse().unwrap();
        let rules = Network { bridge: "phbr0".into(), subnet, table: "pilothouse_t".into(), only: None }.rules();
        let at = |part: &str| rules.find(part).unwrap_or_else(|| panic!("{part} is missing in:\n{rules}"));
        at("ip daddr { 100.64.0.0/10, 198.19.0.0/16 } drop");
        assert!(at("ip daddr 169.254.0.0/16 meta l4proto { tcp, udp } th dport 53 accept") < at("169.254.0.0/16 drop"));
    }
    #[test]
    fn isolated_machines_reach_the_gateway_the_resolvers_and_the_internet() {
        let gateway = "192.168.1.7:8443".parse().unwrap();
        let subnet = "100.64.208.0/20".parse().unwrap();
        let network = Network { bridge: "phbr0".into(), subnet, table: "pilothouse_t".into(), only: Some(gateway) };
        let rules =
            network.isolated_rules(gateway, &["10.0.0.2".parse().unwrap()], &["203.0.113.0/24".parse().unwrap()]);
        let at = |part: &str| rules.find(part).unwrap_or_else(|| panic!("{part} is missing in:\n{rules}"));
        let forward = at("chain forward");
        for closed in CLOSED.into_iter().chain(["203.0.113.0/24"]) {
            assert!(at(&format!("iifname \"phbr0\" ip daddr {closed} drop")) > forward);
        }
        let (gateway, resolver) = ("ip daddr 192.168.1.7 tcp dport 8443 accept", "ip daddr 10.0.0.2 meta l4proto");
        assert_eq!((rules.matches(gateway).count(), rules.matches(resolver).count()), (2, 2), "for input and forward");
        assert!(rules.rfind(gateway) < rules.find("ip daddr 192.168.0.0/16 drop"), "an open one first");
        assert!(rules[..forward].trim_end().ends_with("iifname \"phbr0\" drop\n  }"), "nothing else of this machine");
        assert_eq!(own_networks("no-such").iter().filter(|network| network.addr().is_loopback()).count(), 1);
    }
}
