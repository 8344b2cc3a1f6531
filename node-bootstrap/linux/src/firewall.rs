//! Whose firewall drops what has to pass. An accept in one base chain of nftables does not override a drop in another (nft(8), "verdict
//! statements"), so a foreign drop can be named and not healed.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// Names of tables that the platform, its agent and what they start keep themselves.
const OURS: [&str; 3] = ["pilothouse", "kube-proxy", "cni_hostport"];

/// A hook at which packets are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// What is for the machine itself.
    Input,
    /// What passes through it.
    Forward,
}

impl Hook {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Forward => "forward",
        }
    }
}

/// A chain at which a packet ends that no rule accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// `ip`, `ip6` or `inet`.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {} of table {} {}", self.chain, self.family, self.table)
    }
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Value>,
}

#[derive(Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

fn items(json: &str, kind: &str) -> Vec<Value> {
    let listing = serde_json::from_str::<Listing>(json).map(|listing| listing.nftables).unwrap_or_default();
    listing.into_iter().filter_map(|mut item| item.get_mut(kind).map(Value::take)).collect()
}

fn is_foreign(chain: &Chain) -> bool {
    ["ip", "inet"].contains(&chain.family.as_str()) && !OURS.iter().any(|ours| chain.table.starts_with(ours))
}

/// The foreign base chains at a hook, of `nft -j list chains` (libnftables-json(5)): the closed ones by policy, and those that a last rule
/// may close.
pub fn chains(json: &str, hook: Hook) -> (Vec<Closed>, Vec<Closed>) {
    let all = items(json, "chain").into_iter().filter_map(|chain| serde_json::from_value::<Chain>(chain).ok());
    let here = all.filter(|chain| chain.hook.as_deref() == Some(hook.as_str()) && is_foreign(chain));
    let (closed, open): (Vec<_>, Vec<_>) = here.partition(|chain| chain.policy.as_deref() == Some("drop"));
    let named = |chain: Chain| Closed { family: chain.family, table: chain.table, chain: chain.name };
    (closed.into_iter().map(named).collect(), open.into_iter().map(named).collect())
}

/// Whether a chain ends with a rule that drops or rejects everything, of `nft -j list chain …`: firewalld's chains do.
pub fn ends_closed(json: &str) -> bool {
    let rules = items(json, "rule");
    let Some(expressions) = rules.last().and_then(|rule| rule["expr"].as_array()) else { return false };
    let mut verdicts = expressions.iter().filter(|one| one.get("counter").is_none());
    matches!((verdicts.next(), verdicts.next()), (Some(only), None) if only.get("drop").is_some() || only.get("reject").is_some())
}

/// What lets `range` through a closed chain, by whose it is; `to`: where it goes, for the hook input.
pub fn remedy(closed: &Closed, hook: Hook, range: &str, to: &str) -> String {
    let Closed { family, table, chain } = closed;
    let everything = to.is_empty();
    let match_to = if everything { String::new() } else { format!(" ip daddr {to}") };
    if table.starts_with("firewalld") {
        return format!("firewall-cmd --permanent --zone=trusted --add-source={range} && firewall-cmd --reload");
    }
    match (hook, table.as_str()) {
        (Hook::Forward, "filter") => format!(
            "iptables -I FORWARD -s {range} -j ACCEPT; iptables -I FORWARD -d {range} -j ACCEPT (with ufw instead: ufw route allow from \
             {range}; ufw route allow to {range}. With Docker: the same rules in its chain DOCKER-USER)"
        ),
        (Hook::Input, "filter") => {
            let to = if everything { String::new() } else { format!(" -d {to}") };
            format!("iptables -I INPUT -s {range}{to} -j ACCEPT (with ufw instead: ufw allow from {range})")
        }
        (Hook::Forward, _) => format!(
            "nft insert rule {family} {table} {chain} ip saddr {range} accept; nft insert rule {family} {table} {chain} ip daddr {range} accept"
        ),
        (Hook::Input, _) => format!("nft insert rule {family} {table} {chain} ip saddr {range}{match_to} accept"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAINS: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 2, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 3}},
        {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "handle": 2, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "inet", "table": "firewalld", "name": "filter_INPUT", "handle": 3, "type": "filter", "hook": "input", "prio": 10, "policy": "accept"}},
        {"chain": {"family": "ip", "table": "kube-proxy", "name": "filter-input", "handle": 3, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "ip", "table": "pilothouse_node", "name": "forward_last", "handle": 3, "type": "filter", "hook": "forward", "prio": 350, "policy": "accept"}}]}"#;

    #[test]
    fn foreign_chains_that_drop_are_found_and_ours_are_not() {
        let (closed, open) = chains(CHAINS, Hook::Forward);
        assert_eq!(closed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["chain FORWARD of table ip filter"]);
        assert!(open.is_empty());
        let (closed, open) = chains(CHAINS, Hook::Input);
        assert!(closed.is_empty());
        assert_eq!(open[0].table, "firewalld");
        assert_eq!(chains("no JSON", Hook::Input), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_last_rule_may_close_a_chain() {
        let rule = |expr: &str| {
            format!(r#"{{"nftables": [{{"rule": {{"expr": [{{"accept": null}}]}}}}, {{"rule": {{"expr": {expr}}}}}]}}"#)
        };
        assert!(ends_closed(&rule(r#"[{"counter": {"packets": 1, "bytes": 2}}, {"drop": null}]"#)));
        assert!(ends_closed(&rule(r#"[{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]"#)));
        assert!(!ends_closed(&rule(r#"[{"match": {}}, {"drop": null}]"#)));
        assert!(!ends_closed(&rule(r#"[{"accept": null}]"#)) && !ends_closed("{}"));
    }

    #[test]
    fn the_remedy_is_a_command_of_whoever_closed_it() {
        let closed = |table: &str| Closed { family: "inet".into(), table: table.into(), chain: "c".into() };
        assert!(
            remedy(&closed("filter"), Hook::Forward, "10.244.0.0/16", "")
                .contains("ufw route allow from 10.244.0.0/16")
        );
        assert!(
            remedy(&closed("filter"), Hook::Input, "10.244.0.0/16", "198.18.0.1")
                .contains("-s 10.244.0.0/16 -d 198.18.0.1")
        );
        assert!(remedy(&closed("firewalld"), Hook::Input, "10.244.0.0/16", "").contains("--zone=trusted"));
        assert_eq!(
            remedy(&closed("mine"), Hook::Input, "10.244.0.0/16", "198.18.0.1"),
            "nft insert rule inet mine c ip saddr 10.244.0.0/16 ip daddr 198.18.0.1 accept"
        );
    }
}
