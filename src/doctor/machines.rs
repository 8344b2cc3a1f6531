//! What keeps local machines from this one: the mode they run in, and, where they are isolated, a trial from inside of them.
//!
//! Connections are opened from where a machine's root would; nothing is concluded from the rules' text.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use futures::future::join_all;

use super::Check;
use super::isolation::{address_of, reaches};
use crate::cgroup;
use crate::detach::read_ready;
use crate::instance::{Addresses, Instance, Record};
use crate::platform::machines::Mode;

const ID: &str = "local-machines";
/// Machines and listeners tried at most: each takes half a second, and all are tried at once.
const MACHINES: usize = 4;
const LISTENERS: usize = 48;
/// Where each machine's kubelet listens.
const KUBELET: u16 = 10250;
/// `TCP_LISTEN` in `/proc/net/tcp` (proc_net(5)).
const LISTENS: &str = "0A";

/// Says the mode; from up to [`MACHINES`] isolated machines it tries up to [`LISTENERS`] listeners of this one, and the other machines.
pub async fn probe(instance: &Instance, record: &Record) -> Check {
    match read_ready(instance).map(|ready| ready.local_machines) {
        Ok(Mode::Isolated) => tried(instance, record).await,
        Ok(Mode::Trusted) => Check::warn(
            ID,
            Mode::Trusted.described(),
            "good for trying out; for others' workloads take machines of their own: pilothouse up --local-machines off",
        ),
        Ok(Mode::Off) | Err(_) => Check::pass(ID, Mode::Off.described()),
    }
}

/// What was found out by trying.
struct Found {
    machines: usize,
    tried: usize,
    reached: Vec<String>,
    sees: bool,
}

async fn tried(instance: &Instance, record: &Record) -> Check {
    let machines = machines(instance, record).await;
    let listeners = listeners(&own_addresses(), &listening_ports(), record.advertise.port());
    let kubelets = machines.iter().map(|(_, address)| (*address, KUBELET));
    let targets: Vec<_> = listeners.into_iter().chain(kubelets).collect();
    let pairs = machines.iter().flat_map(|machine| targets.iter().map(move |target| (*machine, *target)));
    let pairs = pairs.filter(|((_, from), (to, _))| from != to);
    let tries = pairs.map(|((pid, from), (to, port))| async move {
        reaches(pid, to, port).await.then(|| format!("{from} → {to}:{port}"))
    });
    let tries: Vec<_> = tries.collect();
    let tried = tries.len();
    let reached = join_all(tries).await.into_iter().flatten().collect();
    let sees = match (machines.first(), record.advertise) {
        (Some((pid, _)), SocketAddr::V4(gateway)) => reaches(*pid, *gateway.ip(), gateway.port()).await,
        _ => false,
    };
    verdict(&Found { machines: machines.len(), tried, reached, sees })
}

fn verdict(found: &Found) -> Check {
    if found.machines == 0 {
        return Check::pass(ID, "isolated; none runs now: nothing to try");
    }
    if !found.reached.is_empty() {
        return Check::fail(
            ID,
            format!("isolated, but machines reach what they must not: {}", found.reached.join(", ")),
            "see whether something replaced the nftables table pilothouse_NAME; pilothouse down and up set it again",
        );
    }
    if !found.sees {
        return Check::warn(
            ID,
            "isolated, but nothing is proven: not even the gateway answers a machine",
            "ask again when its nodes are ready; are nsenter, timeout and bash installed?",
        );
    }
    let (tried, machines) = (found.tried, found.machines);
    Check::pass(ID, format!("isolated: {tried} forbidden connections from {machines} machines all failed"))
}

/// A process of each machine that is in the machine's own network, and its address.
async fn machines(instance: &Instance, record: &Record) -> Vec<(i32, Ipv4Addr)> {
    let range = Addresses::of(record.slot).machines();
    let (mut networks, mut found) = (BTreeSet::new(), Vec::new());
    for pid in cgroup::processes(&cgroup::v2_root().join(instance.cgroup()).join("machines")) {
        let Ok(network) = fs::read_link(format!("/proc/{pid}/ns/net")) else { continue };
        if found.len() == MACHINES || !networks.insert(network) {
            continue;
        }
        if let Some(address) = address_of(pid).await.filter(|address| range.contains(address)) {
            found.push((pid, address));
        }
    }
    found
}

/// Every port that something listens on, at every address of this machine, but the gateway's.
fn listeners(addresses: &[Ipv4Addr], ports: &BTreeSet<u16>, gateway: u16) -> Vec<(Ipv4Addr, u16)> {
    let open = ports.iter().filter(|port| **port != gateway);
    open.flat_map(|port| addresses.iter().map(move |address| (*address, *port))).take(LISTENERS).collect()
}

fn own_addresses() -> Vec<Ipv4Addr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let own: BTreeSet<Ipv4Addr> = all.filter_map(|one| Some(one.address?.as_sockaddr_in()?.ip())).collect();
    own.into_iter().filter(|address| !address.is_loopback()).collect()
}

fn listening_ports() -> BTreeSet<u16> {
    let texts = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    texts.iter().flat_map(|text| text.lines().filter_map(listening)).collect()
}

/// The port of a line whose socket listens.
fn listening(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace().skip(1);
    let local = words.next()?;
    let state = words.nth(1)?;
    (state == LISTENS).then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn listeners_are_read_off_the_kernels_table() {
        let line = "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0";
        assert_eq!(listening(line), Some(22));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening("  sl  local_address rem_address   st tx_queue rx_queue"), None);
        let addresses = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
        assert_eq!(listeners(&addresses, &BTreeSet::from([22, 8443]), 8443), addresses.map(|address| (address, 22)));
    }

    #[test]
    fn a_trial_that_sees_nothing_proves_nothing() {
        let found = |machines, reached: &[&str], sees| Found {
            machines,
            tried: 6,
            reached: reached.iter().map(ToString::to_string).collect(),
            sees,
        };
        assert_eq!(verdict(&found(0, &[], false)).status, Verdict::Pass);
        assert_eq!(verdict(&found(1, &[], true)).status, Verdict::Pass);
        assert_eq!(verdict(&found(1, &[], false)).status, Verdict::Warn);
        assert_eq!(verdict(&found(1, &["a → b:22"], true)).status, Verdict::Fail);
    }
}
