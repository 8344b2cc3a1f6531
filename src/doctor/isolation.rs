//! The isolation probe: from inside tenants' own network namespaces it tries to cross into other tenants and into the host.
//!
//! It opens real TCP connections from where a tenant's process would; nothing is concluded from the rules' text.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use super::Check;
use crate::cgroup;
use crate::host::isolation::State;
use crate::instance::{Addresses, Instance};
use crate::run::{run, succeeds};

/// What a tenant must never reach: etcd, API servers, kubelet.
const PORTS: [u16; 3] = [2379, 6443, 10250];

/// Tries every forbidden way out of every tenant pod, and the one allowed way to be sure that the probe can see.
pub async fn probe(instance: &Instance, addresses: Addresses) -> Check {
    let Some(state) = State::load(instance) else {
        return Check::pass("isolation", "no host of our own runs here");
    };
    let places = places(instance, &state).await;
    if places.is_empty() {
        return Check::pass("isolation", "no tenant runs: nothing to cross");
    }
    let mut crossed = Vec::new();
    let mut tried = 0;
    for (pid, from) in &places {
        for to in targets(&state, *from, addresses) {
            for port in PORTS {
                tried += 1;
                if reaches(*pid, to, port).await {
                    crossed.push(format!("{from} → {to}:{port}"));
                }
            }
        }
    }
    if !crossed.is_empty() {
        return Check::fail(
            "isolation",
            format!("tenants can cross: {}", crossed.join(", ")),
            "stop the instance and report this: it is a fault of the platform",
        );
    }
    Check::pass("isolation", format!("{tried} forbidden connections from {} tenant pods all failed", places.len()))
}

/// Where a tenant's pod must not get to: every pod that is not its own, the host's node and its machine.
fn targets(state: &State, from: Ipv4Addr, addresses: Addresses) -> BTreeSet<Ipv4Addr> {
    let foreign = state.tenants.iter().copied().filter(|to| *to != from && !state.pairs.contains(&(from, *to)));
    foreign.chain([addresses.inside(), Ipv4Addr::new(169, 254, 169, 254)]).collect()
}

/// One process of each tenant pod, with the pod's address.
async fn places(instance: &Instance, state: &State) -> Vec<(i32, Ipv4Addr)> {
    let mut found: Vec<(i32, Ipv4Addr)> = Vec::new();
    for pid in cgroup::processes(&cgroup::v2_root().join(instance.cgroup()).join("node")) {
        let Some(address) = address_of(pid).await else { continue };
        if state.tenants.contains(&address) && !found.iter().any(|(_, known)| *known == address) {
            found.push((pid, address));
        }
    }
    found
}

async fn address_of(pid: i32) -> Option<Ipv4Addr> {
    if !Path::new(&format!("/proc/{pid}/ns/net")).exists() {
        return None;
    }
    let text =
        run(&["nsenter", &format!("--net=/proc/{pid}/ns/net"), "ip", "-4", "-o", "address", "show", "dev", "eth0"])
            .await
            .ok()?;
    text.split_whitespace().skip_while(|word| *word != "inet").nth(1)?.split('/').next()?.parse().ok()
}

async fn reaches(pid: i32, to: Ipv4Addr, port: u16) -> bool {
    let net = format!("--net=/proc/{pid}/ns/net");
    succeeds(&["nsenter", &net, "timeout", "0.5", "bash", "-c", &format!("exec 3<>/dev/tcp/{to}/{port}")]).await
}
