//! A machine's cgroups: made in every hierarchy, used to find and to end its processes.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::LocalError;
use crate::prune::remove_tree;
use crate::stage::DEVICES;
use crate::users::Users;

const MOUNT: &str = "/sys/fs/cgroup";

/// Every hierarchy that processes can be put into: v1 controllers and v2, or v2 alone.
pub fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(MOUNT);
    if root.join("cgroup.procs").exists() {
        return vec![root.to_owned()];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    // Controllers mounted together appear once under their joint name and again as links.
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect()
}

fn v2() -> PathBuf {
    let hybrid = Path::new(MOUNT).join("unified");
    if hybrid.exists() { hybrid } else { PathBuf::from(MOUNT) }
}

/// Puts the calling process into `cgroup` in every hierarchy.
pub fn enter(cgroup: &str) -> Result<(), LocalError> {
    for root in hierarchies() {
        let dir = make(&root, cgroup)?;
        let procs = dir.join("cgroup.procs");
        fs::write(&procs, "0").map_err(LocalError::file(procs))?;
    }
    Ok(())
}

/// Puts another process into `cgroup` in every hierarchy.
pub fn put(cgroup: &str, pid: u32) -> Result<(), LocalError> {
    for root in hierarchies() {
        let procs = make(&root, cgroup)?.join("cgroup.procs");
        fs::write(&procs, pid.to_string()).map_err(LocalError::file(procs))?;
    }
    Ok(())
}

/// The deepest tree of a machine's cgroups: a pod's container is at 4, and what a container makes for itself is below.
const DEPTH: &str = "32";
/// The most cgroups of a machine: a full node of 110 pods has some 500.
const DESCENDANTS: &str = "4096";

/// Bounds the tree that a machine's root can make below `cgroup`; each cgroup is memory of the kernel's. Only version 2 knows such limits. The
/// files stay ours when the cgroup is delegated.
pub fn limit_tree(cgroup: &str) -> Result<(), LocalError> {
    let dir = make(&v2(), cgroup)?;
    for (name, limit) in [("cgroup.max.depth", DEPTH), ("cgroup.max.descendants", DESCENDANTS)] {
        let file = dir.join(name);
        fs::write(&file, limit).map_err(LocalError::file(&file))?;
    }
    Ok(())
}

/// Lets root of a user namespace arrange what is below `cgroup`, within the limits that stay ours (cgroups(7), "delegation").
pub fn delegate(cgroup: &str, users: Users) -> Result<(), LocalError> {
    for root in hierarchies() {
        let dir = make(&root, cgroup)?;
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
    let root = Path::new(MOUNT).join("devices");
    if !root.join("devices.deny").exists() {
        return Ok(());
    }
    let dir = make(&root, cgroup)?;
    let write = |file: &str, text: &str| fs::write(dir.join(file), text).map_err(LocalError::file(dir.join(file)));
    write("devices.deny", "a")?;
    // The terminals' own numbers are those of devpts.
    let named = DEVICES.iter().map(|(_, major, minor)| format!("c {major}:{minor} rw"));
    let terminals = ["c 5:2 rw", "c 136:* rw"].map(str::to_owned);
    named.chain(terminals).try_for_each(|rule| write("devices.allow", &rule))
}

/// Creates a cgroup level by level, with every controller that its hierarchy has. A v1 cpuset starts empty, and an empty one takes no process.
fn make(root: &Path, cgroup: &str) -> Result<PathBuf, LocalError> {
    let mut dir = root.to_owned();
    for level in cgroup.split('/').filter(|level| !level.is_empty()) {
        let parent = dir.clone();
        hand_down(&parent);
        dir.push(level);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(LocalError::file(&dir)(error));
            }
            _ => fill_cpuset(&parent, &dir),
        }
    }
    Ok(dir)
}

/// Version 2: lets the children of `dir` have its controllers (cgroups(7), "cgroup.subtree_control"). One by one, since one that cannot be
/// had would refuse all. A cgroup with processes, as a machine's own is at first, would become a threaded one, which takes no process below:
/// only the hierarchy's root, which has no type, may have both.
fn hand_down(dir: &Path) {
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    if dir.join("cgroup.type").exists() && !read("cgroup.procs").is_empty() {
        return;
    }
    let (have, given) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    for controller in have.split_whitespace().filter(|name| !given.split_whitespace().any(|one| one == *name)) {
        fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")).ok();
    }
}

fn fill_cpuset(parent: &Path, dir: &Path) {
    if !dir.join("cpuset.cpus").exists() || !dir.join("cgroup.clone_children").exists() {
        return;
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let empty = fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim().is_empty());
        if empty {
            let value = fs::read_to_string(parent.join(file)).unwrap_or_default();
            fs::write(dir.join(file), value.trim()).ok();
        }
    }
    fs::write(dir.join("cgroup.clone_children"), "1").ok();
}

/// True while any process of the machine lives.
pub fn populated(cgroup: &str) -> bool {
    let events = fs::read_to_string(v2().join(cgroup).join("cgroup.events")).unwrap_or_default();
    events.contains("populated 1")
}

/// Asks the machine's PID 1 to end, waits, then ends everything in the cgroup.
pub fn stop(cgroup: &str, init: Option<i32>, grace: Duration) -> Result<(), LocalError> {
    if let Some(pid) = init {
        kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
    }
    if init.is_some() && empty_within(cgroup, grace) {
        return Ok(());
    }
    fs::write(v2().join(cgroup).join("cgroup.kill"), "1").ok();
    if empty_within(cgroup, Duration::from_secs(10)) {
        return Ok(());
    }
    Err(LocalError::Stuck { id: cgroup.to_owned() })
}

fn empty_within(cgroup: &str, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    while populated(cgroup) {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Removes the machine's cgroups, deepest first, from every hierarchy. Stale ones cost the next kubelet 12 s.
pub fn remove(cgroup: &str) {
    for root in hierarchies() {
        remove_tree(&root.join(cgroup));
    }
}

/// The machine's PID 1 as the outside sees it: the process in the cgroup that is first in its own process namespace.
pub fn init(cgroup: &str) -> Option<i32> {
    let mut dirs = vec![v2().join(cgroup)];
    while let Some(dir) = dirs.pop() {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        if let Some(pid) = text.lines().filter_map(|line| line.parse().ok()).find(|pid| is_first(*pid)) {
            return Some(pid);
        }
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        dirs.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    None
}

/// `NSpid` lists a process's numbers from the outermost namespace inwards; a machine's first process reads `… 1` with two.
fn is_first(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    numbers.len() == 2 && numbers[1] == "1"
}
