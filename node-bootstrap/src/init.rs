//! The agent as PID 1 of a machine container: a control group of its own, and every orphan taken in.
//!
//! The agent waits for its own children by their ids, so PID 1's duty must not snatch their exit statuses. It does not need to know
//! them: whoever has been a zombie for two looks in a row has nobody who waits. When PID 1 ends, the kernel ends the whole
//! namespace.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use node_linux::cgroup::Cgroups;
use node_linux::describe;
use tokio_util::sync::CancellationToken;

/// The group PID 1 moves itself into: on cgroup version 2 a group with controllers for children may hold no process itself.
pub const LEAF: &str = "/pilothouse-node/agent";

/// The exit code that means: the node was removed, or nothing can be done; do not start again.
pub const FINAL: u8 = 10;

/// Between two looks; far longer than the agent takes to fetch a status it waits for.
const LOOK: Duration = Duration::from_secs(10);

/// Moves this process into its own leaf group. Failing is not fatal: version 1 needs none.
pub fn move_to_leaf() {
    let cgroups = Cgroups::detect();
    // Version 2 hands controllers down only from a cgroup without processes: once more after joining.
    let moved = cgroups.join(LEAF, std::process::id()).and_then(|()| cgroups.create(LEAF));
    if let Err(error) = moved {
        tracing::warn!(error = describe(&error), "not moved into a control group of its own");
    }
}

/// Takes in orphans until stopped.
pub async fn reap(stop: CancellationToken) {
    let mut seen = BTreeSet::new();
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        seen = look(&seen);
    }
}

/// One look: takes in the zombies that were seen before, returns those of now.
fn look(seen: &BTreeSet<i32>) -> BTreeSet<i32> {
    let now = zombies(std::process::id());
    for orphan in now.intersection(seen) {
        let _ = waitpid(Pid::from_raw(*orphan), Some(WaitPidFlag::WNOHANG));
    }
    now.difference(seen).copied().collect()
}

/// Children of `parent` that ended and were not waited for.
fn zombies(parent: u32) -> BTreeSet<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeSet::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| is_zombie_of(*pid, parent)).collect()
}

fn is_zombie_of(pid: i32, parent: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let mut fields = fields.split_whitespace();
    fields.next() == Some("Z") && fields.next() == Some(&parent.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::zombie_processes, reason = "a zombie is what is wanted")]
    fn a_zombie_is_taken_in_at_the_second_look() {
        let child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !is_zombie_of(pid, std::process::id()) && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        // Other tests' zombies are theirs: only this one is put before the second look.
        assert!(look(&BTreeSet::new()).contains(&pid), "the first look only notes it");
        assert!(is_zombie_of(pid, std::process::id()));
        assert!(!look(&BTreeSet::from([pid])).contains(&pid));
        assert!(!is_zombie_of(pid, std::process::id()), "the second takes it in");
    }
}
