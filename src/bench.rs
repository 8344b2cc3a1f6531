//! `pilothouse bench`: figures of this machine, as JSON lines. The first line says what the machine is, the last sums up.

mod api;
mod create;
mod idle;
mod join;

use std::fs;
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use crate::options::{BenchArgs, BenchCommand};
use node_linux::resources::memory_bytes;

/// Measures what was asked for.
pub async fn bench(args: BenchArgs) -> Result<ExitCode> {
    println!("{}", machine());
    match args.what {
        BenchCommand::Create(args) => create::run(args).await?,
        BenchCommand::Idle(args) => idle::run(args).await?,
        BenchCommand::Join(args) => join::run(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the figures depend on.
fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    json!({
        "bench": "machine",
        "cpus": cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        "cpu": model.trim_start_matches([' ', '\t', ':']),
        "memory_bytes": memory_bytes(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load": read("/proc/loadavg").split_whitespace().next().unwrap_or_default(),
        "pilothouse": env!("CARGO_PKG_VERSION"),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
    })
}

/// The value below which `percent` of the values lie (nearest rank); nothing of nothing.
fn percentile(values: &[f64], percent: u32) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent as usize).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_nearest_rank() {
        let values = [3.0, 1.0, 2.0, 4.0];
        assert_eq!(percentile(&values, 50), Some(2.0));
        assert_eq!(percentile(&values, 99), Some(4.0));
        assert_eq!(percentile(&[], 50), None);
    }
}
