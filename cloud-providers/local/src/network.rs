//! The bridge that machines hang on, and the NAT that hides them: nothing outside can dial a machine.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::error::LocalError;
use crate::tool::{run, run_with_input};

/// Kernel values that are raised where they are lower. Each machine takes eight inotify instances (containerd, kubelet and their pods):
/// the kernel's default of 128 serves 15 machines.
pub const RAISED: [(&str, u32); 2] =
    [("/proc/sys/fs/inotify/max_user_instances", 8192), ("/proc/sys/net/ipv4/ip_forward", 1)];

/// The bridge and its rules.
#[derive(Debug, Clone)]
pub struct Network {
    /// The bridge's name, at most 15 bytes.
    pub bridge: String,
    /// The machines' range; its first address is the bridge's.
    pub subnet: Ipv4Net,
    /// The nftables table (family `ip`) that is ours alone.
    pub table: String,
}

impl Network {
    /// The bridge's own address, the machines' way out.
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.hosts().next().unwrap_or(self.subnet.addr())
    }

    /// Makes bridge and rules, or finds them. Runs any number of times.
    pub async fn ensure(&self) -> Result<(), LocalError> {
        for (path, least) in RAISED {
            raise(path, least)?;
        }
        if run(&["ip", "link", "show", &self.bridge]).await.is_err() {
            run(&["ip", "link", "add", &self.bridge, "type", "bridge"]).await?;
        }
        let address = format!("{}/{}", self.gateway(), self.subnet.prefix_len());
        run(&["ip", "address", "replace", &address, "dev", &self.bridge]).await?;
        run(&["ip", "link", "set", &self.bridge, "up"]).await?;
        run_with_input(&["nft", "-f", "-"], &self.rules()).await?;
        Ok(())
    }

    /// Takes bridge and rules away.
    pub async fn remove(&self) {
        run(&["ip", "link", "delete", &self.bridge]).await.ok();
        run(&["nft", "delete", "table", "ip", &self.table]).await.ok();
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
}

/// Sets a kernel value where it is lower.
fn raise(path: &str, least: u32) -> Result<(), LocalError> {
    let now = std::fs::read_to_string(path).map_err(LocalError::file(path))?;
    if now.trim().parse::<u32>().is_ok_and(|now| now >= least) {
        return Ok(());
    }
    std::fs::write(path, least.to_string()).map_err(LocalError::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_reach_neither_hosts_nor_the_clouds_identity() {
        let subnet = "100.64.208.0/20".parse().unwrap();
        let rules = Network { bridge: "phbr0".into(), subnet, table: "pilothouse_t".into() }.rules();
        let at = |part: &str| rules.find(part).unwrap_or_else(|| panic!("{part} is missing in:\n{rules}"));
        at("ip daddr { 100.64.0.0/10, 198.19.0.0/16 } drop");
        assert!(at("ip daddr 169.254.0.0/16 meta l4proto { tcp, udp } th dport 53 accept") < at("169.254.0.0/16 drop"));
    }
}
