//! Control groups, version 1 (also hybrid) and version 2: making, joining, killing and removing them.
//!
//! Facts that shaped this: a kubelet that finds stale pod groups waits 12 s for them; version 1's `cpuset` refuses processes until
//! its `cpus` and `mems` are filled; version 2 lets a group have processes or controllers for its children, not both, so the agent
//! as PID 1 moves itself into a leaf. A group named `/x` here means `x` below every mounted hierarchy.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::files::{self, FileError};
use crate::mounts::{self, Mount};

/// Controllers handed to children on version 2, when the kernel has them.
const CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"];

/// The hierarchies of this mount namespace.
#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    unified: bool,
    cpuset: bool,
}

impl Cgroups {
    /// Finds what is mounted below `/sys/fs/cgroup`.
    pub fn detect() -> Result<Self, FileError> {
        Ok(Self::of(&mounts::list()?))
    }

    fn of(mounts: &[Mount]) -> Self {
        let ours = mounts.iter().filter(|mount| {
            matches!(mount.kind.as_str(), "cgroup" | "cgroup2") && mount.point.starts_with("/sys/fs/cgroup")
        });
        let hierarchies = ours.map(|mount| Hierarchy {
            mount: mount.point.clone(),
            unified: mount.kind == "cgroup2",
            cpuset: mount.options.split(',').any(|option| option == "cpuset"),
        });
        Self { hierarchies: hierarchies.collect() }
    }

    /// True when resource limits live in version 1 hierarchies (kubelet then needs `failCgroupV1: false`).
    pub fn is_v1(&self) -> bool {
        !self.hierarchies.iter().any(|hierarchy| hierarchy.unified && hierarchy.mount == Path::new("/sys/fs/cgroup"))
    }

    /// True when nothing usable is mounted.
    pub fn is_empty(&self) -> bool {
        self.hierarchies.is_empty()
    }

    fn dirs(&self, group: &str) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        let relative = group.trim_start_matches('/').to_owned();
        self.hierarchies.iter().map(move |hierarchy| (hierarchy, hierarchy.mount.join(&relative)))
    }

    /// Makes a group in every hierarchy, ready for processes and for children with controllers.
    pub fn create(&self, group: &str) -> Result<(), FileError> {
        for hierarchy in &self.hierarchies {
            let mut dir = hierarchy.mount.clone();
            for part in group.split('/').filter(|part| !part.is_empty()) {
                hierarchy.open_up(&dir);
                dir.push(part);
                files::make_dir(&dir)?;
                hierarchy.fill_cpuset(&dir);
            }
        }
        Ok(())
    }

    /// Moves a process (all its threads) into a group, in every hierarchy.
    pub fn join(&self, group: &str, pid: u32) -> Result<(), FileError> {
        for (_, dir) in self.dirs(group) {
            let procs = dir.join("cgroup.procs");
            fs::write(&procs, pid.to_string()).map_err(files::io("write", &procs))?;
        }
        Ok(())
    }

    /// Every process in a group or below it, in any hierarchy, each once.
    pub fn processes(&self, group: &str) -> Vec<u32> {
        let mut pids = Vec::new();
        for (_, dir) in self.dirs(group) {
            walk(&dir, &mut |dir| {
                let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            });
        }
        pids.sort_unstable();
        pids.dedup();
        pids.retain(|pid| *pid != std::process::id() && *pid != 0);
        pids
    }

    /// Ends every process of a group: TERM, up to `grace`, then KILL until none is left (at most 5 s more). Returns who survived.
    /// Blocks.
    pub fn kill(&self, group: &str, grace: Duration) -> Vec<u32> {
        if !grace.is_zero() {
            self.signal(group, Signal::SIGTERM);
            self.await_empty(group, grace);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            for (_, dir) in self.dirs(group) {
                let _ = fs::write(dir.join("cgroup.kill"), "1");
            }
            self.signal(group, Signal::SIGKILL);
            self.await_empty(group, Duration::from_millis(200));
            let left = self.processes(group);
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
        }
    }

    fn signal(&self, group: &str, signal: Signal) {
        for pid in self.processes(group) {
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }

    fn await_empty(&self, group: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline && !self.processes(group).is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Removes a group and what is below it, wherever no process is left in it. True when it is gone everywhere.
    pub fn remove(&self, group: &str) -> bool {
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            let left = self.dirs(group).filter(|(_, dir)| !remove_dir(dir)).count();
            if left == 0 || Instant::now() > deadline {
                return left == 0;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes the stale (empty) groups below a group, once, leaving whatever is in use.
    pub fn prune(&self, group: &str) {
        for (_, dir) in self.dirs(group) {
            remove_dir(&dir);
        }
    }
}

impl Hierarchy {
    /// Version 2: lets the children of `dir` have controllers. One by one, since one missing would refuse all. A group with processes,
    /// as PID 1's own is at first, would become a threaded one, whose children take no process; the hierarchy's root, which alone has no
    /// type, may have both (cgroups(7), "Thread mode").
    fn open_up(&self, dir: &Path) {
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        if !self.unified || (dir.join("cgroup.type").exists() && !read("cgroup.procs").is_empty()) {
            return;
        }
        let have = read("cgroup.controllers");
        for controller in CONTROLLERS.iter().filter(|wanted| have.split_whitespace().any(|name| name == **wanted)) {
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }

    /// Version 1: an empty cpuset takes no process; it gets its parent's.
    fn fill_cpuset(&self, dir: &Path) {
        if !self.cpuset || self.unified {
            return;
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let empty = fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim().is_empty());
            let parent = dir.parent().map(|parent| fs::read_to_string(parent.join(file)).unwrap_or_default());
            if let (true, Some(parent)) = (empty, parent) {
                let _ = fs::write(dir.join(file), parent.trim());
            }
        }
        let _ = fs::write(dir.join("cgroup.clone_children"), "1");
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let dirs = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path()).collect()
}

fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    visit(dir);
    for child in children(dir) {
        walk(&child, visit);
    }
}

/// Removes a group's directory depth first. True when it is gone.
fn remove_dir(dir: &Path) -> bool {
    for child in children(dir) {
        remove_dir(&child);
    }
    match fs::remove_dir(dir) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &str, kind: &str, options: &str) -> Mount {
        Mount { root: "/".into(), point: point.into(), flags: "rw".into(), kind: kind.into(), options: options.into() }
    }

    #[test]
    fn hybrid_is_version_one_and_unified_is_two() {
        let hybrid = [
            mount("/sys/fs/cgroup/cpuset", "cgroup", "rw,cpuset"),
            mount("/sys/fs/cgroup/unified", "cgroup2", "rw"),
            mount("/mnt/elsewhere", "cgroup", "rw,memory"),
        ];
        let cgroups = Cgroups::of(&hybrid);
        assert!(cgroups.is_v1());
        assert_eq!(cgroups.hierarchies.len(), 2, "other people's mounts are left alone");
        assert!(cgroups.hierarchies[0].cpuset && !cgroups.hierarchies[1].cpuset);
        assert!(!Cgroups::of(&[mount("/sys/fs/cgroup", "cgroup2", "rw")]).is_v1());
    }

    #[test]
    fn a_group_is_made_joined_killed_and_removed() {
        let cgroups = Cgroups::detect().unwrap();
        let group = format!("/pilothouse-test-{}/leaf", std::process::id());
        if cgroups.is_empty() || cgroups.create(&group).is_err() {
            return; // not root, or no control groups here
        }
        let mut child = std::process::Command::new("sleep").arg("300").spawn().unwrap();
        cgroups.join(&group, child.id()).unwrap();
        assert_eq!(cgroups.processes(&group), vec![child.id()]);
        let waiter = std::thread::spawn(move || child.wait().unwrap());
        assert!(cgroups.kill(&group, Duration::from_millis(500)).is_empty());
        assert!(!waiter.join().unwrap().success());
        let top = group.trim_end_matches("/leaf");
        assert!(cgroups.remove(top));
        assert!(cgroups.dirs(top).all(|(_, dir)| !dir.exists()));
    }
}
