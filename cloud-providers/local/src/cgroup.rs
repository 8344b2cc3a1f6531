//! What is special about a machine's cgroups: the limits and rights of those who are root in it, and its first process.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node_linux::cgroup::Cgroups;

use crate::error::LocalError;
use crate::stage::DEVICES;
use crate::users::Users;

/// The deepest tree of a machine's cgroups: a pod's container is at 4, and what a container makes for itself is below.
const DEPTH: &str = "32";
/// The most cgroups of a machine: a full node of 110 pods has some 500.
const DESCENDANTS: &str = "4096";

/// Puts the calling process into `cgroup` in every hierarchy.
pub fn enter(cgroup: &str) -> Result<(), LocalError> {
    Ok(Cgroups::detect().join(cgroup, 0)?)
}

/// Bounds the tree that a machine's root can make below `cgroup`; each cgroup is memory of the kernel's. Only version 2 knows such limits. The
/// files stay ours when the cgroup is delegated.
pub fn limit_tree(cgroup: &str) -> Result<(), LocalError> {
    let cgroups = Cgroups::detect();
    cgroups.create(cgroup)?;
    limit_processes(&cgroups, cgroup)?;
    let Some(unified) = cgroups.unified() else { return Ok(()) };
    for (name, limit) in [("cgroup.max.depth", DEPTH), ("cgroup.max.descendants", DESCENDANTS)] {
        let file = unified.join(cgroup).join(name);
        fs::write(&file, limit).map_err(LocalError::file(&file))?;
    }
    Ok(())
}

/// Leaves the kernel's process ids to others too: a machine has at most a quarter of them.
fn limit_processes(cgroups: &Cgroups, cgroup: &str) -> Result<(), LocalError> {
    let most = fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse::<u32>().ok());
    let limit = (most.unwrap_or(32768) / 4).to_string();
    for file in cgroups.dirs(cgroup).map(|dir| dir.join("pids.max")).filter(|file| file.exists()) {
        fs::write(&file, &limit).map_err(LocalError::file(&file))?;
    }
    Ok(())
}

/// Lets root of a user namespace arrange what is below `cgroup`, within the limits that stay ours (cgroups(7), "delegation").
pub fn delegate(cgroup: &str, users: Users) -> Result<(), LocalError> {
    let cgroups = Cgroups::detect();
    cgroups.create(cgroup)?;
    for dir in cgroups.dirs(cgroup) {
        let files =
            ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"].map(|name| dir.join(name));
        for path in files.iter().filter(|path| path.exists()) {
            chown(path, Some(users.root()), Some(users.root())).map_err(LocalError::file(path))?;
        }
    }
    Ok(())
}

/// Closes every device but harmless ones to `cgroup` and all below it, where there is a version 1 controller for it. It must be new:
/// one with children is refused. With version 2 alone it is the user namespace that lets nobody make a device.
pub fn limit_devices(cgroup: &str) -> Result<(), LocalError> {
    let root = Path::new("/sys/fs/cgroup/devices");
    if !root.join("devices.deny").exists() {
        return Ok(());
    }
    Cgroups::detect().create(cgroup)?;
    let dir = root.join(cgroup);
    let write = |file: &str, text: &str| fs::write(dir.join(file), text).map_err(LocalError::file(dir.join(file)));
    write("devices.deny", "a")?;
    // The terminals' own numbers are those of devpts.
    let named = DEVICES.iter().map(|(_, major, minor)| format!("c {major}:{minor} rw"));
    let terminals = ["c 5:2 rw", "c 136:* rw"].map(str::to_owned);
    named.chain(terminals).try_for_each(|rule| write("devices.allow", &rule))
}

/// True while any process of the machine lives.
pub fn is_populated(cgroup: &str) -> bool {
    Cgroups::detect().is_populated(cgroup)
}

/// Asks the machine's PID 1 to end, waits, then ends everything in the cgroup, and removes it and all below. Blocks.
pub fn stop(cgroup: &str, grace: Duration) -> Result<(), LocalError> {
    let cgroups = Cgroups::detect();
    let init = find_init(&cgroups, cgroup);
    if let Some(pid) = init {
        kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
    }
    let is_empty = init.is_some() && cgroups.await_empty(cgroup, grace);
    let stopped = if is_empty { Ok(()) } else { cgroups.kill(cgroup) };
    cgroups.prune(cgroup);
    stopped.map_err(|_| LocalError::Stuck { id: cgroup.to_owned() })
}

/// The machine's PID 1 as the outside sees it: the process in the cgroup that is first in its own process namespace.
fn find_init(cgroups: &Cgroups, cgroup: &str) -> Option<i32> {
    let pids = cgroups.processes(cgroup).into_iter().filter_map(|pid| i32::try_from(pid).ok());
    pids.into_iter().find(|pid| is_first(*pid))
}

/// `NSpid` lists a process's numbers from the outermost namespace inwards; a machine's first process reads `… 1` with two.
fn is_first(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    numbers.len() == 2 && numbers[1] == "1"
}
