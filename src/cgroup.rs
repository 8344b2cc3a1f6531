//! The instance's cgroups as a ledger of its processes: whatever runs is found there again, also after a kill.
//!
//! Only the v2 hierarchy is used for that, in its hybrid place where v1 controllers are mounted too. `cgroup.kill`
//! (Linux 5.14) ends a whole tree at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

/// The root of the v2 hierarchy: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside v1 controllers.
pub fn v2_root() -> PathBuf {
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    if hybrid.join("cgroup.procs").exists() { hybrid.to_owned() } else { PathBuf::from("/sys/fs/cgroup") }
}

/// True where v1 controllers are mounted beside v2.
pub fn is_hybrid() -> bool {
    v2_root().ends_with("unified")
}

/// Creates a cgroup (path relative to the hierarchy's root). Returns the file into which a process writes its id to enter.
pub fn make(cgroup: &str) -> Result<PathBuf> {
    let dir = v2_root().join(cgroup);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir.join("cgroup.procs"))
}

/// [`make`], and beside it the same cgroup of the version 1 hierarchy that bounds memory, where there is one: a child must not count as
/// the platform's own process. The files to enter, with blanks between; an instance's name has none.
pub fn make_everywhere(cgroup: &str) -> Result<String> {
    let mut files = make(cgroup)?.display().to_string();
    if let Some(memory) = memory_v1() {
        let dir = memory.join(cgroup);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        files.push_str(&format!(" {}", dir.join("cgroup.procs").display()));
    }
    Ok(files)
}

/// The version 1 hierarchy with the memory controller, where there is one.
pub fn memory_v1() -> Option<PathBuf> {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    v1.join("memory.limit_in_bytes").exists().then(|| v1.to_owned())
}

/// Ends every process of a cgroup and those below: TERM, then `cgroup.kill` when the grace is over.
pub async fn stop(cgroup: &str, grace: Duration) -> Result<()> {
    let dir = v2_root().join(cgroup);
    if !dir.exists() {
        return Ok(());
    }
    for pid in processes(&dir) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).ok();
    }
    if !empty_within(&dir, grace).await {
        fs::write(dir.join("cgroup.kill"), "1").ok();
        if !empty_within(&dir, Duration::from_secs(10)).await {
            bail!("processes in cgroup {cgroup} do not end: {:?}", processes(&dir));
        }
    }
    Ok(())
}

/// Removes a cgroup and all below it from every hierarchy. They must be empty of processes.
pub fn remove_everywhere(cgroup: &str) {
    let mut roots = vec![v2_root()];
    if is_hybrid() {
        let entries = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        roots.extend(entries.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()));
    }
    for root in roots {
        cloud_local::remove_cgroups(&root.join(cgroup));
    }
}

/// Every process of a cgroup and those below it.
pub fn processes(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(processes(&entry.path()));
        }
    }
    all
}

/// Waits until the kernel reports the tree empty (`populated 0`).
async fn empty_within(dir: &Path, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
        if !events.contains("populated 1") {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        sleep(Duration::from_millis(10)).await;
    }
}
