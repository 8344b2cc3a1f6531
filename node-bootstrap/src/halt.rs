//! Ends a static node for good: every process of its control group, every mount below its directories. Data stays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use node_linux::cgroup::{Cgroups, Stuck};
use node_linux::files::{self, FileError};
use node_linux::footprint;
use node_linux::mounts;

use crate::child::Identity;
use crate::spec::Layout;
use crate::static_node::{COPY, StaticNode};

/// What could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum HaltError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Processes that survived KILL.
    #[error("{0}; try again, or reboot")]
    Processes(#[from] Stuck),
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
    let root = Path::new("/");
    footprint::remove_cni_results(root, &node.network_name);
    footprint::remove_log_links(root, &layout.pod_logs);
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
    let cgroups = Cgroups::detect();
    for group in groups {
        cgroups.stop(group, grace)?;
        if !cgroups.remove(group) {
            return Err(HaltError::Cgroup(group.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halting_nothing_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        halt(dir.path(), Duration::ZERO).unwrap();
        halt(dir.path(), Duration::ZERO).unwrap();
    }
}
