//! Cgroups of version 1 (also hybrid) and version 2: creating, entering, ending and removing them.
//!
//! Facts that shaped this: a kubelet that finds stale cgroups of pods waits 12 s for them; version 1's `cpuset` refuses processes until its
//! `cpus` and `mems` are filled; version 2 lets a cgroup have processes or controllers for its children, not both, so an agent that is PID 1
//! moves itself into a leaf. A cgroup named `x` or `/x` here means `x` below the root of every hierarchy. It is also the ledger by which
//! processes are found again after whoever started them was killed. Everything blocks.

mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::files::{self, FileError};

const MOUNT: &str = "/sys/fs/cgroup";
/// Between two looks whether processes have ended.
const POLL: Duration = Duration::from_millis(5);
/// How long processes may take to end after KILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long an empty cgroup may take until the kernel lets it be removed.
const REMOVE_LIMIT: Duration = Duration::from_secs(2);

/// Processes that survived KILL.
#[derive(Debug, thiserror::Error)]
#[error("processes {pids:?} in cgroup {cgroup} do not end (stuck in the kernel)")]
pub struct Stuck {
    /// Where they are.
    pub cgroup: String,
    /// Who they are; empty where only the kernel's own count says so.
    pub pids: Vec<u32>,
}

/// The hierarchies that this process sees.
#[derive(Debug, Clone)]
pub struct Cgroups {
    mount: PathBuf,
    /// Every hierarchy into which processes can be put: version 1's controllers and version 2, or version 2 alone.
    roots: Vec<PathBuf>,
}

impl Cgroups {
    /// Finds what is mounted at and below `/sys/fs/cgroup`.
    pub fn detect() -> Self {
        Self::at(Path::new(MOUNT))
    }

    pub(crate) fn at(mount: &Path) -> Self {
        let is_root = |dir: &Path| dir.join("cgroup.procs").exists();
        let roots = if is_root(mount) {
            vec![mount.to_owned()]
        } else {
            // Controllers mounted together appear once under their joint name and again as links.
            children(mount).into_iter().filter(|dir| is_root(dir)).collect()
        };
        Self { mount: mount.to_owned(), roots }
    }

    /// True when nothing usable is mounted.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The root of the version 2 hierarchy: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside version 1's controllers.
    pub fn unified(&self) -> Option<&Path> {
        let hybrid = self.mount.join("unified");
        self.roots.iter().find(|root| **root == self.mount || **root == hybrid).map(PathBuf::as_path)
    }

    /// True when resource limits live in version 1 hierarchies (kubelet then needs `failCgroupV1: false`).
    pub fn is_v1(&self) -> bool {
        self.unified() != Some(&self.mount)
    }

    /// True where version 1's controllers are mounted beside version 2.
    pub fn is_hybrid(&self) -> bool {
        self.is_v1() && self.unified().is_some()
    }

    /// The version 1 hierarchy with the memory controller, where there is one.
    pub fn memory_v1(&self) -> Option<&Path> {
        self.roots.iter().find(|root| root.join("memory.limit_in_bytes").exists()).map(PathBuf::as_path)
    }

    /// The controllers that resource limits can be set with.
    pub fn controllers(&self) -> BTreeSet<String> {
        let of_v1 = |root: &PathBuf| root.file_name().unwrap_or_default().to_string_lossy().replace(',', " ");
        let of_root =
            |root: &PathBuf| fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_else(|_| of_v1(root));
        self.roots
            .iter()
            .flat_map(|root| of_root(root).split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// The directory of a cgroup in every hierarchy, whether it exists or not.
    pub fn dirs(&self, cgroup: &str) -> impl Iterator<Item = PathBuf> {
        let relative = cgroup.trim_start_matches('/').to_owned();
        self.roots.iter().map(move |root| root.join(&relative))
    }

    /// Creates a cgroup in every hierarchy, level by level, ready for processes and for children with controllers.
    pub fn create(&self, cgroup: &str) -> Result<(), FileError> {
        for root in &self.roots {
            let mut dir = root.clone();
            for level in cgroup.split('/').filter(|level| !level.is_empty()) {
                let parent = dir.clone();
                hand_down_controllers(&parent);
                dir.push(level);
                match fs::create_dir(&dir) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                        return Err(files::io("make directory", &dir)(error));
                    }
                    _ => fill_cpuset(&parent, &dir),
                }
            }
        }
        Ok(())
    }

    /// Creates a cgroup only to find its processes again and to bound their memory: in the version 2 hierarchy and in version 1's with the
    /// memory controller, and no controller is handed down to it. Returns the files into which a process writes its id to enter.
    pub fn create_for_tracking(&self, cgroup: &str) -> Result<Vec<PathBuf>, FileError> {
        let roots = self.unified().into_iter().chain(self.memory_v1());
        let enter = |root: &Path| {
            let dir = root.join(cgroup.trim_start_matches('/'));
            files::make_dir(&dir).map(|()| dir.join("cgroup.procs"))
        };
        roots.map(enter).collect()
    }

    /// Creates a cgroup and moves a process (all its threads) into it, in every hierarchy; 0 means the calling process.
    pub fn join(&self, cgroup: &str, pid: u32) -> Result<(), FileError> {
        self.create(cgroup)?;
        for dir in self.dirs(cgroup) {
            let procs = dir.join("cgroup.procs");
            fs::write(&procs, pid.to_string()).map_err(files::io("write", &procs))?;
        }
        Ok(())
    }

    /// Every process in a cgroup or below it, in any hierarchy, each once; but never the calling one.
    pub fn processes(&self, cgroup: &str) -> Vec<u32> {
        let mut pids = Vec::new();
        let mut dirs: Vec<PathBuf> = self.dirs(cgroup).collect();
        while let Some(dir) = dirs.pop() {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            dirs.extend(children(&dir));
        }
        pids.sort_unstable();
        pids.dedup();
        pids.retain(|pid| *pid != std::process::id() && *pid != 0);
        pids
    }

    /// True while any process lives in a cgroup or below it, by the kernel's own count in the version 2 hierarchy.
    pub fn is_populated(&self, cgroup: &str) -> bool {
        let dir = self.unified().map(|root| root.join(cgroup.trim_start_matches('/')));
        let events = dir.and_then(|dir| fs::read_to_string(dir.join("cgroup.events")).ok());
        events.is_some_and(|events| events.contains("populated 1"))
    }

    /// Waits until no process is left in a cgroup or below it. False when there is one still after `limit`.
    pub fn await_empty(&self, cgroup: &str, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        // One file of the kernel's first; the whole tree only once that says nothing of processes, as it does without version 2.
        while self.is_populated(cgroup) || !self.processes(cgroup).is_empty() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }

    /// Ends every process of a cgroup and those below: TERM, and [`Self::kill`] for who is left after `grace`.
    pub fn stop(&self, cgroup: &str, grace: Duration) -> Result<(), Stuck> {
        if !grace.is_zero() {
            self.signal(cgroup, Signal::SIGTERM);
        }
        if self.await_empty(cgroup, grace) { Ok(()) } else { self.kill(cgroup) }
    }

    /// Ends every process of a cgroup and those below at once: `cgroup.kill` (Linux 5.14) ends a whole tree of version 2. Whoever is left, as
    /// with version 1 alone, gets signals, again and again, since it may make new ones.
    pub fn kill(&self, cgroup: &str) -> Result<(), Stuck> {
        let deadline = Instant::now() + KILL_LIMIT;
        loop {
            for dir in self.dirs(cgroup) {
                let _ = fs::write(dir.join("cgroup.kill"), "1");
            }
            if self.await_empty(cgroup, Duration::from_millis(200)) {
                return Ok(());
            }
            self.signal(cgroup, Signal::SIGKILL);
            if Instant::now() > deadline {
                return Err(Stuck { cgroup: cgroup.to_owned(), pids: self.processes(cgroup) });
            }
        }
    }

    fn signal(&self, cgroup: &str, signal: Signal) {
        for pid in self.processes(cgroup) {
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }

    /// Removes a cgroup and what is below it, wherever no process is left in it. True when it is gone everywhere.
    pub fn remove(&self, cgroup: &str) -> bool {
        let deadline = Instant::now() + REMOVE_LIMIT;
        loop {
            self.prune(cgroup);
            let gone = self.dirs(cgroup).all(|dir| !dir.exists());
            if gone || Instant::now() > deadline {
                return gone;
            }
            std::thread::sleep(POLL);
        }
    }

    /// Removes the stale (empty) cgroups at and below a cgroup, once, leaving whatever is in use.
    pub fn prune(&self, cgroup: &str) {
        self.dirs(cgroup).for_each(|dir| tree::remove(&dir));
    }
}

/// Version 2: lets the children of `dir` have its controllers (cgroups(7), "cgroup.subtree_control"). One by one, since one that cannot be
/// had would refuse all. A cgroup with processes, as PID 1's own is at first, would become a threaded one, whose children take no process
/// ("Thread mode"): only the hierarchy's root, which alone has no type, may have both.
fn hand_down_controllers(dir: &Path) {
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    if dir.join("cgroup.type").exists() && !read("cgroup.procs").is_empty() {
        return;
    }
    let (have, given) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    for controller in have.split_whitespace().filter(|name| !given.split_whitespace().any(|one| one == *name)) {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Version 1: an empty cpuset takes no process; it gets its parent's.
fn fill_cpuset(parent: &Path, dir: &Path) {
    if !dir.join("cpuset.cpus").exists() || !dir.join("cgroup.clone_children").exists() {
        return;
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let is_empty = fs::read_to_string(dir.join(file)).is_ok_and(|text| text.trim().is_empty());
        if is_empty {
            let value = fs::read_to_string(parent.join(file)).unwrap_or_default();
            let _ = fs::write(dir.join(file), value.trim());
        }
    }
    let _ = fs::write(dir.join("cgroup.clone_children"), "1");
}

/// The directories in a directory, without links.
fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(mount: &Path, name: &str, files: &[&str]) {
        fs::create_dir_all(mount.join(name)).unwrap();
        for file in files {
            fs::write(mount.join(name).join(file), "").unwrap();
        }
    }

    #[test]
    fn hybrid_is_version_one_and_unified_is_two() {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path();
        assert!(Cgroups::at(mount).is_empty());
        hierarchy(mount, "cpuset", &["cgroup.procs"]);
        hierarchy(mount, "memory", &["cgroup.procs", "memory.limit_in_bytes"]);
        hierarchy(mount, "elsewhere", &[]);
        std::os::unix::fs::symlink("memory", mount.join("alias")).unwrap();
        let v1 = Cgroups::at(mount);
        assert!(v1.is_v1() && !v1.is_hybrid() && v1.unified().is_none());
        hierarchy(mount, "unified", &["cgroup.procs"]);
        let hybrid = Cgroups::at(mount);
        assert!(hybrid.is_v1() && hybrid.is_hybrid());
        assert_eq!(hybrid.roots.len(), 3, "what is no hierarchy is left alone, and each counts once");
        assert_eq!(hybrid.memory_v1(), Some(mount.join("memory").as_path()));
        assert_eq!(hybrid.create_for_tracking("/a/b").unwrap().len(), 2);
        assert!(mount.join("unified/a/b").exists() && !mount.join("cpuset/a").exists());
        hierarchy(mount, "", &["cgroup.procs"]);
        assert!(!Cgroups::at(mount).is_v1() && !Cgroups::at(mount).is_hybrid());
    }

    #[test]
    fn an_empty_cpuset_gets_its_parents() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["cpuset.cpus", "cpuset.mems", "cgroup.clone_children"];
        hierarchy(dir.path(), "", &files);
        hierarchy(dir.path(), "child", &files);
        fs::write(dir.path().join("cpuset.cpus"), "0-3\n").unwrap();
        fs::write(dir.path().join("child/cpuset.mems"), "1\n").unwrap();
        fill_cpuset(dir.path(), &dir.path().join("child"));
        let read = |name: &str| fs::read_to_string(dir.path().join("child").join(name)).unwrap();
        assert_eq!((read("cpuset.cpus").as_str(), read("cpuset.mems").as_str()), ("0-3", "1\n"));
    }

    /// As root, on a machine with cgroups: where tests run.
    #[test]
    fn a_cgroup_is_created_joined_stopped_and_removed() {
        let cgroups = Cgroups::detect();
        let cgroup = format!("/pilothouse-test-{}/leaf", std::process::id());
        let mut child = std::process::Command::new("sleep").arg("300").spawn().unwrap();
        cgroups.join(&cgroup, child.id()).unwrap();
        assert_eq!(cgroups.processes(&cgroup), vec![child.id()]);
        assert!(!cgroups.await_empty(&cgroup, Duration::ZERO));
        let waiter = std::thread::spawn(move || child.wait().unwrap());
        cgroups.stop(&cgroup, Duration::from_millis(500)).unwrap();
        assert!(!waiter.join().unwrap().success());
        let top = cgroup.trim_end_matches("/leaf");
        assert!(cgroups.remove(top));
        assert!(cgroups.dirs(top).all(|dir| !dir.exists()));
    }
}
