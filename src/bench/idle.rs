//! Memory and CPU at rest: of each tenant's processes, of the host's and of the platform itself.
//!
//! Memory is the anonymous part (`Anonymous` of smaps_rollup, proc(5)): what one more tenant costs. Pages of program text are
//! shared by all tenants of a host and counted for none; the resident size, which has them, stands beside it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::Result;
use node_linux::cgroup::Cgroups;
use serde_json::json;
use tokio::time::sleep;

use crate::instance::Instance;
use crate::options::BenchIdleArgs;

/// Clock ticks a second in /proc (sysconf(_SC_CLK_TCK) is 100 on every Linux that Rust supports).
const TICKS: f64 = 100.0;

/// One process as it was seen.
struct Seen {
    group: &'static str,
    name: String,
    anonymous: u64,
    resident: u64,
    ticks: u64,
}

/// Looks twice and prints one line a process name and group.
pub async fn run(args: BenchIdleArgs) -> Result<()> {
    let instance = Instance::new(&args.instance.name, args.instance.data_dir)?;
    instance.existing()?;
    let before: BTreeMap<u32, u64> = look(&instance).into_iter().map(|(pid, seen)| (pid, seen.ticks)).collect();
    sleep(Duration::from_secs(args.seconds)).await;
    let mut sums: BTreeMap<(&'static str, String), (u32, u64, u64, f64)> = BTreeMap::new();
    for (pid, seen) in look(&instance) {
        let spent = seen.ticks.saturating_sub(before.get(&pid).copied().unwrap_or(seen.ticks));
        let cores = spent as f64 / TICKS / args.seconds as f64;
        let sum = sums.entry((seen.group, seen.name)).or_default();
        *sum = (sum.0 + 1, sum.1 + seen.anonymous, sum.2 + seen.resident, sum.3 + cores);
    }
    let mut totals: BTreeMap<&str, (u64, f64)> = BTreeMap::new();
    for ((group, name), (count, anonymous, resident, cores)) in &sums {
        println!(
            "{}",
            json!({ "bench": "idle", "group": group, "process": name, "count": count, "anonymous_bytes": anonymous, "resident_bytes": resident, "cores": cores })
        );
        let total = totals.entry(group).or_default();
        *total = (total.0 + anonymous, total.1 + cores);
    }
    let groups: BTreeMap<_, _> = totals
        .iter()
        .map(|(group, (anonymous, cores))| (*group, json!({ "anonymous_bytes": anonymous, "cores": cores })))
        .collect();
    println!("{}", json!({ "bench": "idle", "summary": true, "seconds": args.seconds, "groups": groups }));
    Ok(())
}

fn look(instance: &Instance) -> Vec<(u32, Seen)> {
    let (cgroups, top) = (Cgroups::detect(), instance.cgroup());
    let mut all = Vec::new();
    for (group, part) in
        [("host", "platform"), ("node", "node/services"), ("tenants", "node/kubepods"), ("machines", "machines")]
    {
        all.extend(cgroups.processes(&format!("{top}/{part}")).into_iter().map(|pid| (group, pid)));
    }
    all.extend(instance.pid().map(|pid| ("platform", pid.cast_unsigned())));
    all.into_iter().filter_map(|(group, pid)| Some((pid, see(group, pid)?))).collect()
}

fn see(group: &'static str, pid: u32) -> Option<Seen> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = String::from_utf8_lossy(line.split(|byte| *byte == 0).next()?).into_owned();
    let name = first.rsplit('/').next().unwrap_or_default().to_owned();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |key: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.trim_start_matches(':').split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
            * 1024
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.rsplit(')').next()?;
    let number =
        |index: usize| after.split_whitespace().nth(index).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    Some(Seen { group, name, anonymous: field("Anonymous"), resident: field("Rss"), ticks: number(11) + number(12) })
}
