//! The platform's own process beside everything else on the machine: the last to be ended when memory is short, and bounded itself, so that
//! a fault of it does not take the machine.

use std::fs;

use anyhow::{Context, Result, bail};
use node_linux::cgroup::Cgroups;
use tracing::{debug, warn};

use crate::instance::Instance;
use node_linux::resources::memory_bytes;

/// How the kernel ranks this process when memory is short, -1000 (never) to 1000 (proc_pid_oom_score_adj(5)). Below kubelet's and
/// containerd's own (-999) there is nothing left for a leak of ours, so it is not -1000.
const OOM_SCORE: i32 = -900;
/// The least and the most that the process may have, in bytes: between them half of the machine's memory.
const LEAST: u64 = 512 << 20;
const MOST: u64 = 8 << 30;

/// Lowers the process's rank where this user may, and bounds its memory in a cgroup of its own. Neither is worth ending for.
pub fn protect(instance: &Instance) {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", OOM_SCORE.to_string()) {
        debug!("the out-of-memory score stays as it is: {error}");
    }
    if let Err(error) = bound(instance) {
        warn!("the platform's memory is not bounded: {error:#}");
    }
}

/// The cgroup of the platform's process. Not below `/platform`, where what an earlier run left is ended.
pub fn group(instance: &Instance) -> String {
    format!("{}/main", instance.cgroup())
}

/// Enters the cgroup and sets its limit, in whichever hierarchy has the memory controller.
fn bound(instance: &Instance) -> Result<()> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if is_unit(&own) {
        debug!("a systemd unit bounds this process: MemoryMax= in it counts");
        return Ok(());
    }
    let cgroups = Cgroups::detect();
    let limit = limit(memory_bytes());
    for procs in cgroups.create_for_tracking(&group(instance))? {
        fs::write(&procs, "0").with_context(|| format!("write {}", procs.display()))?;
    }
    let (root, file) = match (cgroups.memory_v1(), cgroups.unified()) {
        (Some(v1), _) => (v1, "memory.limit_in_bytes"),
        (None, Some(v2)) => (v2, "memory.max"),
        (None, None) => bail!("no cgroups are mounted"),
    };
    if cgroups.memory_v1().is_none() {
        // The controller is handed down step by step (cgroups(7), "cgroup.subtree_control").
        for dir in [root.to_owned(), root.join(instance.cgroup())] {
            fs::write(dir.join("cgroup.subtree_control"), "+memory").ok();
        }
    }
    let path = root.join(group(instance)).join(file);
    fs::write(&path, limit.to_string()).with_context(|| format!("write {}", path.display()))
}

/// Whether systemd keeps this process as a service's: it looks after it by its cgroup, so it stays there.
fn is_unit(own: &str) -> bool {
    own.lines().filter_map(|line| line.rsplit('/').next()).any(|leaf| leaf.ends_with(".service"))
}

fn limit(machine: u64) -> u64 {
    (machine / 2).clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_memory_within_bounds() {
        assert_eq!(limit(1 << 30), 512 << 20);
        assert_eq!(limit(8 << 30), 4 << 30);
        assert_eq!(limit(256 << 30), MOST);
        assert_eq!(limit(0), LEAST);
    }

    #[test]
    fn a_service_stays_where_systemd_put_it() {
        assert!(is_unit("0::/system.slice/pilothouse.service\n"));
        assert!(!is_unit("0::/user.slice/user-0.slice/session-1.scope\n") && !is_unit("0::/\n"));
    }
}
