//! The isolation probe: from inside tenants' own network namespaces it tries to cross into other tenants and into the host.
//!
//! It opens real TCP connections from where a tenant's process would; nothing is concluded from the rules' text.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use node_linux::cgroup::Cgroups;
use node_linux::tool::{run, succeeds};

use super::Check;
use crate::instance::Instance;
use embedded_host::site::Addresses;
use futures::{StreamExt, stream};
use tenant_controlplane::isolation::IsolationState;

/// What a tenant must never reach: etcd, its plain health port, API servers, kubelet.
const PORTS: [u16; 4] = [ETCD, 2381, 6443, 10250];
const ETCD: u16 = 2379;
/// Connections that are tried at once: each that is dropped takes half a second.
const AT_ONCE: usize = 16;

/// Tries every forbidden way out of every tenant pod, and the allowed ways too: a probe that gets nowhere proves nothing.
pub async fn probe(instance: &Instance, addresses: Addresses) -> Check {
    let Some(state) = embedded_host::isolation::load(&instance.dir) else {
        return Check::pass("isolation", "no host of our own runs here");
    };
    let places = places(instance, &state).await;
    if places.is_empty() {
        return Check::pass("isolation", "no tenant runs: nothing to cross");
    }
    let found = Found {
        tried: places.iter().map(|(_, from)| targets(&state, *from, addresses).len() * PORTS.len()).sum(),
        crossed: crossed(&state, &places, addresses).await,
        sees: sees(&state, &places).await,
    };
    verdict(&found, places.len())
}

/// What the probe saw.
struct Found {
    tried: usize,
    crossed: Vec<String>,
    sees: bool,
}

fn verdict(found: &Found, pods: usize) -> Check {
    if !found.crossed.is_empty() {
        return Check::fail(
            "isolation",
            format!("tenants can cross: {}", found.crossed.join(", ")),
            "stop the instance and report this: it is a fault of the platform",
        );
    }
    if !found.sees {
        return Check::warn(
            "isolation",
            format!("nothing is proven: from {pods} tenant pods not even the allowed ways to etcd open"),
            "wait until a cluster is running and ask again; are nsenter, timeout and bash installed?",
        );
    }
    Check::pass("isolation", format!("{} forbidden connections from {pods} tenant pods all failed", found.tried))
}

async fn crossed(state: &IsolationState, places: &[(u32, Ipv4Addr)], addresses: Addresses) -> Vec<String> {
    let mut ways = Vec::new();
    for (pid, from) in places {
        let targets = targets(state, *from, addresses);
        ways.extend(targets.into_iter().flat_map(|to| PORTS.map(|port| (*pid, *from, to, port))));
    }
    let tried = stream::iter(ways).map(|(pid, from, to, port)| async move {
        reaches(pid, to, port).await.then(|| format!("{from} → {to}:{port}"))
    });
    tried.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

/// Whether some API server reaches its own etcd, as it must.
async fn sees(state: &IsolationState, places: &[(u32, Ipv4Addr)]) -> bool {
    for (pid, from) in places {
        for (_, to) in state.pairs.iter().filter(|(one, _)| one == from) {
            if reaches(*pid, *to, ETCD).await {
                return true;
            }
        }
    }
    false
}

/// Where a tenant's pod must not get to: every pod that is not its own, the host's node and its machine.
fn targets(state: &IsolationState, from: Ipv4Addr, addresses: Addresses) -> BTreeSet<Ipv4Addr> {
    let foreign = state.tenants.iter().copied().filter(|to| *to != from && !state.pairs.contains(&(from, *to)));
    foreign.chain([addresses.inside(), Ipv4Addr::new(169, 254, 169, 254)]).collect()
}

/// One process of each tenant pod, with the pod's address.
async fn places(instance: &Instance, state: &IsolationState) -> Vec<(u32, Ipv4Addr)> {
    let mut found: Vec<(u32, Ipv4Addr)> = Vec::new();
    for pid in Cgroups::detect().processes(&format!("{}/node", instance.cgroup())) {
        let Some(address) = address_of(pid).await else { continue };
        if state.tenants.contains(&address) && !found.iter().any(|(_, known)| *known == address) {
            found.push((pid, address));
        }
    }
    found
}

/// The IPv4 address that a process has on `eth0`.
pub(super) async fn address_of(pid: u32) -> Option<Ipv4Addr> {
    if !Path::new(&format!("/proc/{pid}/ns/net")).exists() {
        return None;
    }
    let text =
        run(&["nsenter", &format!("--net=/proc/{pid}/ns/net"), "ip", "-4", "-o", "address", "show", "dev", "eth0"])
            .await
            .ok()?;
    text.split_whitespace().skip_while(|word| *word != "inet").nth(1)?.split('/').next()?.parse().ok()
}

/// Whether a TCP connection opens from the network namespace of a process.
async fn reaches(pid: u32, to: Ipv4Addr, port: u16) -> bool {
    let net = format!("--net=/proc/{pid}/ns/net");
    succeeds(&["nsenter", &net, "timeout", "0.5", "bash", "-c", &format!("exec 3<>/dev/tcp/{to}/{port}")]).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_probe_that_sees_nothing_proves_nothing() {
        let found = |crossed: &[&str], sees| Found {
            tried: 6,
            crossed: crossed.iter().map(ToString::to_string).collect(),
            sees,
        };
        assert_eq!(verdict(&found(&[], true), 2).status, Verdict::Pass);
        assert_eq!(verdict(&found(&[], false), 2).status, Verdict::Warn);
        assert_eq!(verdict(&found(&["a → b"], false), 2).status, Verdict::Fail);
    }
}
