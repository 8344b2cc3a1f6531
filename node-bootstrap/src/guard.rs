//! What the node set in the machine's network, looked at again while it lives: others on the machine (Docker, ufw, firewalld, an
//! administrator's `nft flush ruleset`) change the same kernel.
//!
//! What is ours is put back: forwarding, the agent's table, the addresses on `lo`, kube-proxy's table (by starting kube-proxy again). What is
//! others' is told: a chain of theirs that drops what pods send cannot be overridden from a table of ours (nft(8)). It is not concluded
//! from their rules but from two pairs of counters: the first and the last chain at a hook count the same new connections, and what only
//! the first one sees was dropped between them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use node_linux::describe;
use node_linux::firewall::{self, Closed, Hook};
use node_protocol::{Check, CheckStatus};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::child::Identity;
use crate::network::{self, Counters, NetworkError};
use crate::spec::{Layout, Network};
use crate::status::Board;
use crate::{kube_proxy, kubelet};

/// Between two looks: a fault is known well within a minute.
const LOOK: Duration = Duration::from_secs(20);
/// So many new connections without one that passed are no chance.
const EVIDENCE: u64 = 3;

/// Looks after a node's network.
pub struct Guard {
    /// What the network should be.
    pub network: Network,
    /// The node's addresses on `lo`.
    pub addresses: Vec<IpAddr>,
    /// Where the node's files lie.
    pub layout: Layout,
}

/// What was seen until now.
#[derive(Debug, Default)]
struct Memory {
    counted: Counters,
    /// New connections since one passed, by hook.
    forward: u64,
    api: u64,
    /// Whether kube-proxy's table was there at the last look.
    proxy_had_table: bool,
}

impl Guard {
    /// Looks until `stop` and tells the board, once the node is in force (`observed` is its generation): before that the node's own start
    /// sets all this.
    pub async fn run(self, board: Board, observed: watch::Receiver<u64>, stop: CancellationToken) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut state = (self, Memory::default());
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            if *observed.borrow() == 0 {
                continue;
            }
            let look = tokio::task::spawn_blocking(move || {
                let checks = state.0.look(&mut state.1);
                (state, checks)
            });
            let Ok((back, checks)) = look.await else { return };
            state = back;
            match checks {
                Ok(checks) => board.checks(checks),
                Err(error) => tracing::warn!(error = describe(&error), "the node's network could not be looked at"),
            }
        }
    }

    /// Puts back what is ours and says what is not. Blocks for some milliseconds.
    fn look(&self, memory: &mut Memory) -> Result<Vec<Check>, NetworkError> {
        for healed in self.heal(memory)? {
            tracing::warn!(healed, "somebody changed this machine's network; put back");
        }
        if let Err(error) = kubelet::place_resolver(Path::new("/"), &self.layout) {
            tracing::warn!(error = describe(&error), "pods' resolver file not written");
        }
        let now = network::counters()?;
        let before = std::mem::replace(&mut memory.counted, now);
        count(&mut memory.forward, before.forward, now.forward);
        count(&mut memory.api, before.api, now.api);
        let mut checks = Vec::new();
        if memory.forward >= EVIDENCE {
            checks.extend(self.dropped(Hook::Forward, memory.forward)?);
        }
        if memory.api >= EVIDENCE {
            checks.extend(self.dropped(Hook::Input, memory.api)?);
        }
        Ok(checks)
    }

    fn heal(&self, memory: &mut Memory) -> Result<Vec<String>, NetworkError> {
        let mut healed = Vec::new();
        if network::forward()?.is_some() {
            healed.push("ip_forward was off".to_owned());
        }
        let tables = network::tables()?;
        let is_there = |table: &str| tables.lines().any(|line| line.trim() == format!("table {table}"));
        let flushed = !is_there(&format!("ip {}", network::TABLE));
        if flushed {
            network::set_table(&self.network)?;
            memory.counted = Counters::default();
            healed.push("the agent's nftables table was gone".to_owned());
        }
        // One that has not made its table yet is left to make it, however slow the machine is.
        let has_table = is_there("ip kube-proxy");
        if !has_table && (flushed || memory.proxy_had_table) {
            healed.extend(self.restart_proxy());
        }
        memory.proxy_had_table = has_table;
        for address in network::missing_addresses(&self.addresses)? {
            network::add_address(address)?;
            healed.push(format!("{address} was not on lo"));
        }
        Ok(healed)
    }

    /// kube-proxy makes its table at its start, and its supervisor starts it again.
    fn restart_proxy(&self) -> Option<String> {
        let file: PathBuf = self.layout.pids().join(format!("{}.json", kube_proxy::NAME));
        let running = Identity::load(&file)?;
        running.signal(Signal::SIGTERM);
        Some("kube-proxy's nftables table was gone".to_owned())
    }

    /// Names whoever drops at a hook; nothing where nobody else has a closed chain there: then what was dropped was refused by the node
    /// itself, such as a service without endpoints.
    fn dropped(&self, hook: Hook, count: u64) -> Result<Option<Check>, NetworkError> {
        let range = self.network.cluster_pod_cidr.to_string();
        let (id, what, to) = match (hook, self.network.api) {
            (Hook::Forward, _) => ("firewall-forward", "connections of pods to the outside".to_owned(), String::new()),
            (Hook::Input, Some(api)) => {
                ("firewall-input", format!("connections of pods to the cluster's API at {api}"), api.ip().to_string())
            }
            (Hook::Input, None) => return Ok(None),
        };
        let Some(closed) = closed_chains(hook)?.into_iter().next() else { return Ok(None) };
        Ok(Some(Check {
            id: id.into(),
            status: CheckStatus::Fail.into(),
            observed: format!("the last {count} {what} were dropped on this machine, by {closed}"),
            remediation: format!("let them pass: {}", firewall::remedy(&closed, hook, &range, &to)),
        }))
    }
}

/// Adds what only the first chain saw; one that passed shows that the way is open.
fn count(pending: &mut u64, before: (u64, u64), now: (u64, u64)) {
    let (new, passed) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
    *pending = if passed > 0 { 0 } else { pending.saturating_add(new) };
}

fn closed_chains(hook: Hook) -> Result<Vec<Closed>, NetworkError> {
    let (mut closed, open) = firewall::chains(&network::list(&["chains"])?, hook);
    for chain in open {
        let rules = network::list(&["chain", &chain.family, &chain.table, &chain.chain])?;
        closed.extend(firewall::ends_closed(&rules).then_some(chain));
    }
    Ok(closed)
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
