//! The addresses that an instance takes on its machine, and who else uses them: a VPN (Tailscale lives in 100.64.0.0/10 too), a provider's
//! own network, another host's routes.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use node_linux::tool::run;
use serde::Deserialize;

use super::Check;
use embedded_host::site::{Addresses, SLOTS, SPARE_SLOT};

/// A network as wide as this leads everywhere (a default route in halves, 0.0.0.0/1): our own routes are narrower and go before it.
const WIDEST: u8 = 8;

/// A network of the machine that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Its addresses.
    pub network: Ipv4Net,
    /// The interface it is on.
    pub interface: String,
}

/// One entry of `ip -j route` (ip-route(8)).
#[derive(Deserialize)]
struct Route {
    dst: String,
    #[serde(default)]
    dev: String,
}

/// Everything that overlaps a range an instance could take, in all routing tables; nothing where `ip` does not answer.
pub async fn foreign() -> Vec<Foreign> {
    parse(&run(&["ip", "-4", "-j", "route", "show", "table", "all"]).await.unwrap_or_default())
}

fn parse(json: &str) -> Vec<Foreign> {
    let routes: Vec<Route> = serde_json::from_str(json).unwrap_or_default();
    let networks = routes.into_iter().filter_map(|route| {
        let network = route.dst.parse().or_else(|_| route.dst.parse::<Ipv4Addr>().map(Ipv4Net::from)).ok()?;
        Some(Foreign { network, interface: route.dev })
    });
    let mut found: Vec<Foreign> = networks.filter(|one| !is_ours(&one.interface) && is_near(one.network)).collect();
    found.sort_by(|a, b| (a.network, &a.interface).cmp(&(b.network, &b.interface)));
    found.dedup();
    found
}

/// The wire (`ph0h`), the bridge (`phbr0`) and the machines' wires (`ph0m…`) of any instance.
fn is_ours(interface: &str) -> bool {
    let rest = interface.strip_prefix("phbr").or_else(|| interface.strip_prefix("ph")).unwrap_or_default();
    rest.starts_with(|c: char| c.is_ascii_digit())
}

fn is_near(network: Ipv4Net) -> bool {
    network.prefix_len() > WIDEST && (0..SLOTS).any(|slot| overlap(slot, network))
}

fn overlap(slot: u8, network: Ipv4Net) -> bool {
    let own = Addresses::of(slot).all();
    own.contains(&network) || network.contains(&own)
}

/// The slots that a new instance may take, best first. Who is in 100.64.0.0/10 at all may also drop what others send from it (Tailscale
/// does), so the slot outside of it then comes first.
pub fn choices(foreign: &[Foreign]) -> Vec<u8> {
    let mut all: Vec<u8> = (0..SLOTS).collect();
    if !foreign.is_empty() {
        all.sort_by_key(|slot| *slot != SPARE_SLOT);
    }
    all.retain(|slot| !foreign.iter().any(|one| overlap(*slot, one.network)));
    all
}

/// Whether the instance's addresses are its own; `slot` is the one it has, nothing before its first start.
pub fn check(slot: Option<u8>, foreign: &[Foreign]) -> Check {
    let named = |all: &[&Foreign]| {
        all.iter().map(|one| format!("{} of {}", one.network, one.interface)).collect::<Vec<_>>().join(", ")
    };
    let everyone: Vec<&Foreign> = foreign.iter().collect();
    let Some(slot) = slot else {
        return match choices(foreign).first() {
            Some(slot) => Check::pass("ranges", format!("{} is free", Addresses::of(*slot).all())),
            None => Check::fail(
                "ranges",
                format!("100.64.0.0/10 and 198.19.0.0/16 are used by others: {}", named(&everyone)),
                "end that VPN, or give it another range: the host's pods and services need one of these",
            ),
        };
    };
    let own = Addresses::of(slot).all();
    let rivals: Vec<&Foreign> = foreign.iter().filter(|one| overlap(slot, one.network)).collect();
    if rivals.is_empty() {
        return Check::pass("ranges", format!("{own} is this instance's alone"));
    }
    Check::fail(
        "ranges",
        format!("{own}, which this instance's clusters have as addresses, is used by others: {}", named(&rivals)),
        "end that VPN or give it another range; an instance of another name (--name, --data-dir) takes another range",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const PLAIN: &str = r#"[{"dst":"default","gateway":"192.0.2.1","dev":"eth0"},{"dst":"0.0.0.0/1","dev":"tun0"},
        {"dst":"192.0.2.0/24","dev":"eth0"},{"dst":"100.64.0.0/17","dev":"ph0h"},{"dst":"100.65.208.0/20","dev":"phbr1"}]"#;
    const TAILSCALE: &str = r#"[{"dst":"100.101.102.103","dev":"tailscale0","table":"52"},
        {"type":"local","dst":"100.99.1.1","dev":"tailscale0","table":"local"}]"#;

    #[test]
    fn a_machine_without_a_vpn_is_used_as_ever() {
        assert_eq!(parse(PLAIN), []);
        assert_eq!(choices(&[]).first(), Some(&0));
        assert_eq!(check(Some(0), &[]).status, Verdict::Pass);
        assert_eq!(parse("no JSON"), []);
    }

    #[test]
    fn beside_a_vpn_another_range_is_taken() {
        let foreign = parse(TAILSCALE);
        assert_eq!(foreign.len(), 2);
        let choices = choices(&foreign);
        assert_eq!(choices[..2], [SPARE_SLOT, 0]);
        assert!(!choices.contains(&37) && !choices.contains(&35), "100.101 and 100.99 are taken");
        assert!(check(None, &foreign).observed.starts_with("198.19.0.0/16"));
        assert_eq!(check(Some(0), &foreign).status, Verdict::Pass);
        let held = check(Some(37), &foreign);
        assert_eq!(held.status, Verdict::Fail);
        assert!(held.observed.contains("100.101.102.103/32 of tailscale0"), "{}", held.observed);
    }

    #[test]
    fn a_machine_without_a_free_range_is_refused_by_name() {
        let foreign = parse(r#"[{"dst":"100.64.0.0/10","dev":"wg0"},{"dst":"198.18.0.0/15","dev":"bench0"}]"#);
        let check = check(None, &foreign);
        assert_eq!(check.status, Verdict::Fail);
        assert!(check.observed.contains("100.64.0.0/10 of wg0"), "{}", check.observed);
        assert!(!check.remediation.is_empty());
    }
}
