//! Ends a static node for good: every process of its control group, every mount below its directories. Data stays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::cgroup::Cgroups;
use crate::child::Identity;
use crate::files::{self, FileError};
use crate::mounts;
use crate::spec::Layout;
use crate::static_node::{COPY, StaticNode};

/// What could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum HaltError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Processes that survived KILL.
    #[error("processes {0:?} do not end (stuck in the kernel); try again, or reboot")]
    Processes(Vec<u32>),
    /// Mounts that stay.
    #[error("still mounted: {0:?}")]
    Mounted(Vec<PathBuf>),
    /// Control groups that stay.
    #[error("control group {0} cannot be removed")]
    Cgroup(String),
}

/// Ends what runs below `root_dir`; nothing there is fine. Blocks for up to `grace` and some seconds.
pub fn halt(root_dir: &Path, grace: Duration) -> Result<(), HaltError> {
    let Some(node) = files::read_json::<StaticNode>(&root_dir.join(COPY))? else { return Ok(()) };
    let layout = node.layout();
    stop_services(&layout);
    end(std::slice::from_ref(&node.cgroup_root), grace)?;
    let left = mounts::unmount_below(&[node.root_dir.clone(), layout.run.clone()])?;
    if !left.is_empty() {
        return Err(HaltError::Mounted(left));
    }
    forget_network(&node.network_name);
    forget_logs(&layout.pod_logs);
    for name in ["ready", "status.json", "containerd.sock", "containerd.sock.ttrpc"] {
        files::remove(&layout.run.join(name))?;
    }
    for dir in ["pids", "containerd", "runc", "s"] {
        mounts::remove_tree(&layout.run.join(dir))?;
    }
    // Leases of pods that are gone would use the range up.
    mounts::remove_tree(&layout.cni_leases())?;
    Ok(())
}

/// Ends the supervised processes first, so that none of them restarts what is about to end. Waits at most two seconds.
pub fn stop_services(layout: &Layout) {
    let load = |name: &str| Identity::load(&layout.pids().join(format!("{name}.json")));
    let running: Vec<Identity> = ["kubelet", "kube-proxy", "containerd"].into_iter().filter_map(load).collect();
    for identity in &running {
        identity.signal(Signal::SIGTERM);
    }
    for _ in 0..100 {
        if !running.iter().any(Identity::alive) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for identity in &running {
        identity.signal(Signal::SIGKILL);
    }
}

/// Ends and removes control groups.
pub fn end(groups: &[String], grace: Duration) -> Result<(), HaltError> {
    let cgroups = Cgroups::detect()?;
    for group in groups {
        let left = cgroups.kill(group, grace);
        if !left.is_empty() {
            return Err(HaltError::Processes(left));
        }
        if !cgroups.remove(group) {
            return Err(HaltError::Cgroup(group.clone()));
        }
    }
    Ok(())
}

/// Removes what libcni remembers about a network's containers, in a directory nobody can choose.
pub fn forget_network(name: &str) {
    let Ok(entries) = std::fs::read_dir("/var/lib/cni/results") else { return };
    for entry in entries.flatten().filter(|entry| is_result_of(&entry.file_name().to_string_lossy(), name)) {
        let _ = std::fs::remove_file(entry.path());
    }
}

/// `<network>-<container id>-<interface>`; another network's name may begin with this one's.
fn is_result_of(file: &str, network: &str) -> bool {
    let rest = file.strip_prefix(network).and_then(|rest| rest.strip_prefix('-'));
    let id = rest.and_then(|rest| rest.split('-').next()).unwrap_or_default();
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Removes kubelet's machine-wide links to the logs of pods that logged below `pod_logs`.
pub fn forget_logs(pod_logs: &Path) {
    let Ok(entries) = std::fs::read_dir("/var/log/containers") else { return };
    let links = entries.flatten().map(|entry| entry.path());
    for link in links.filter(|link| std::fs::read_link(link).is_ok_and(|target| target.starts_with(pod_logs))) {
        let _ = std::fs::remove_file(link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_networks_results_are_forgotten() {
        let id = "0a".repeat(32);
        assert!(is_result_of(&format!("pilothouse-{id}-eth0"), "pilothouse"));
        assert!(!is_result_of(&format!("pilothouse-two-{id}-eth0"), "pilothouse"));
        assert!(!is_result_of(&format!("other-{id}-eth0"), "pilothouse"));
    }

    #[test]
    fn halting_nothing_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        halt(dir.path(), Duration::ZERO).unwrap();
        halt(dir.path(), Duration::ZERO).unwrap();
    }
}
