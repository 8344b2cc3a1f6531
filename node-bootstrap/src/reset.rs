//! Takes off the machine exactly what the ledger says was put on it, and nothing that is mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use node_linux::cgroup::Cgroups;
use node_linux::describe;
use node_linux::files::{self, FileError};
use node_linux::footprint;
use node_linux::mounts;

use crate::agent::SERVICES;
use crate::child::Identity;
use crate::config::Paths;
use crate::halt::{self, HaltError};
use crate::ledger::{Installed, Ledger};
use crate::spec::Layout;
use crate::{network, service};

/// Where the install script lets the agent log on a machine without systemd.
const UNSERVICED_LOG: &str = "/var/log/pilothouse-node.log";

/// How long pods may take to end by themselves.
const GRACE: Duration = Duration::from_secs(2);

/// A reset that stopped in the middle; it may be run again.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Processes or mounts that stay.
    #[error(transparent)]
    Halt(#[from] HaltError),
    /// nftables or addresses.
    #[error(transparent)]
    Network(#[from] network::NetworkError),
    /// Pods run and nobody said `--force`.
    #[error("{0} processes of pods still run on this machine; drain the node first, or use --force")]
    PodsRunning(usize),
}

/// What a reset would do, in order, for people.
pub fn plan(ledger: &Ledger) -> Vec<String> {
    let installed = &ledger.installed;
    let mut steps: Vec<String> = Vec::new();
    steps.extend(installed.unit.iter().map(|unit| format!("stop and remove the unit {unit}")));
    steps.extend(installed.cgroups.iter().map(|group| format!("end every process in the control group {group}")));
    let dirs = installed.dirs.iter().map(|dir| dir.display().to_string());
    steps.extend(dirs.clone().map(|dir| format!("unmount everything below {dir}")));
    steps.extend(installed.tables.iter().map(|table| format!("remove the nftables table {table}")));
    steps.extend(installed.addresses.iter().map(|address| format!("take {address} off lo")));
    steps.extend(installed.sysctls.iter().map(|(path, value)| format!("set {} back to {value}", path.display())));
    steps.extend(installed.files.iter().map(|file| format!("remove {}", file.display())));
    steps.extend(dirs.map(|dir| format!("remove {dir}")));
    steps
}

/// How many processes of pods run.
pub fn pod_processes() -> usize {
    Cgroups::detect().processes("/kubepods").len()
}

/// Ends an agent that runs beside this process, so that it does not repair what is being removed.
pub fn stop_agent(paths: &Paths, unit: Option<&str>) {
    if let Some(unit) = unit {
        systemctl(&["disable", "--now", unit]);
    }
    let file = Layout::joined(paths).pids().join("agent.json");
    let Some(agent) = Identity::load(&file).filter(|agent| agent.pid != std::process::id()) else { return };
    agent.signal(Signal::SIGTERM);
    for _ in 0..300 {
        if !agent.alive() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    agent.signal(Signal::SIGKILL);
}

fn systemctl(args: &[&str]) {
    if let Err(error) = service::systemctl(args) {
        tracing::debug!(error = describe(&error), "systemd was not told");
    }
}

/// Resets the machine. `keep_tombstone`: the node was removed by the platform and must stay away. Returns what remains, for
/// people. Blocks.
pub fn execute(paths: &Paths, keep_tombstone: bool) -> Result<Vec<String>, ResetError> {
    let ledger = Ledger::load(&paths.ledger())?;
    let installed = &ledger.installed;
    let mut left = Vec::new();
    if let Some(unit) = &installed.unit {
        systemctl(&["disable", unit]);
    }
    halt::stop_services(&Layout::joined(paths));
    let groups: Vec<String> = installed.cgroups.iter().cloned().collect();
    halt::end(&groups, GRACE)?;
    if let Some(parent) = Path::new(SERVICES).parent() {
        // The agent as PID 1 sits in a leaf of it; then it stays until the machine ends.
        Cgroups::detect().prune(&parent.to_string_lossy());
    }
    let dirs: Vec<PathBuf> = installed.dirs.iter().cloned().collect();
    left.extend(mounts::unmount_below(&dirs)?.iter().map(|point| format!("{} is still mounted", point.display())));
    restore(paths, installed, &mut left)?;
    for file in &installed.files {
        files::remove(file)?;
    }
    if installed.unit.is_some() {
        systemctl(&["daemon-reload"]);
    }
    remove_dirs(paths, installed, keep_tombstone, &mut left)?;
    if !keep_tombstone {
        // Where the platform removed the node, they may tell why.
        mounts::remove_tree(&paths.logs())?;
        files::remove(&paths.at(UNSERVICED_LOG))?;
    }
    for logs in [paths.logs(), Layout::joined(paths).pod_logs].iter().filter(|dir| dir.exists()) {
        left.push(format!("logs stay in {}", logs.display()));
    }
    Ok(left)
}

/// Network and sysctls, back to what they were.
fn restore(paths: &Paths, installed: &Installed, left: &mut Vec<String>) -> Result<(), ResetError> {
    for table in &installed.tables {
        let (family, name) = table.split_once(' ').unwrap_or(("ip", table));
        network::remove_table(family, name)?;
    }
    for address in &installed.addresses {
        network::remove_address(address)?;
    }
    if let Some(network) = &installed.network {
        let root = paths.at("/");
        footprint::remove_cni_results(&root, network);
        footprint::remove_log_links(&root, &Layout::joined(paths).pod_logs);
        footprint::remove_device_files(&root);
    }
    for (path, value) in &installed.sysctls {
        if let Err(error) = fs::write(path, value) {
            left.push(format!("{} could not be set back to {value}: {error}", path.display()));
        }
    }
    Ok(())
}

/// The directories, the state directory last (the ledger lies in it) and the tombstone, if it stays, not at all.
fn remove_dirs(
    paths: &Paths,
    installed: &Installed,
    keep_tombstone: bool,
    left: &mut Vec<String>,
) -> Result<(), ResetError> {
    let state = paths.state();
    let mut kept = Vec::new();
    for dir in installed.dirs.iter().filter(|dir| **dir != state) {
        kept.extend(mounts::remove_tree(dir)?);
    }
    kept.extend(remove_state(&state, keep_tombstone.then(|| paths.tombstone()))?);
    // Those inside others come first.
    footprint::remove_empty(installed.shared_dirs.iter().rev());
    left.extend(kept.iter().map(|point| format!("{} was left: something is mounted there", point.display())));
    Ok(())
}

/// Undoes what an enrollment that was refused has left: keys nobody signed. A machine that joined once keeps everything.
pub fn forget_attempt(paths: &Paths) -> Result<(), FileError> {
    if Ledger::load(&paths.ledger())?.membership.is_some() || paths.tombstone().exists() {
        return Ok(());
    }
    mounts::remove_tree(&paths.pki())?;
    files::remove(&paths.state().join("machine.key"))?;
    let _ = fs::remove_dir(paths.state());
    Ok(())
}

fn remove_state(state: &Path, tombstone: Option<PathBuf>) -> Result<Vec<PathBuf>, FileError> {
    let Ok(entries) = fs::read_dir(state) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_by_key(|path| path.file_name().is_some_and(|name| name == "ledger.json"));
    let mut kept = Vec::new();
    for path in paths.into_iter().filter(|path| tombstone.as_ref() != Some(path)) {
        if path.file_name().is_some_and(|name| name == "ledger.json") && !kept.is_empty() {
            continue; // the next reset still needs it
        }
        kept.extend(if path.is_symlink() {
            files::remove(&path).map(|_| Vec::new())?
        } else {
            mounts::remove_tree(&path)?
        });
    }
    let _ = fs::remove_dir(state);
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MsFlags, mount};

    fn ledger(paths: &Paths) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.installed.dirs.extend([paths.state(), paths.run(), paths.bin()]);
        ledger.installed.shared_dirs.insert(paths.at("/opt/pilothouse"));
        ledger.installed.shared_dirs.extend(footprint::missing(&paths.at("/")));
        ledger.installed.files.insert(paths.unit());
        for dir in [paths.state(), paths.run(), paths.bin(), paths.logs()] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::create_dir_all(paths.unit().parent().unwrap()).unwrap();
        fs::write(paths.unit(), "unit").unwrap();
        ledger.save(&paths.ledger()).unwrap();
        ledger
    }

    #[test]
    fn exactly_what_the_ledger_says_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let ledger = ledger(&paths);
        fs::write(paths.logs().join("kubelet.log"), "x").unwrap();
        fs::write(paths.at("/etc/mine"), "not ours").unwrap();
        let device = paths.at("/var/lib/kubelet/device-plugins/other.sock");
        fs::create_dir_all(device.parent().unwrap()).unwrap();
        fs::write(&device, "another's").unwrap();
        fs::create_dir_all(paths.at("/var/lib/cni/results")).unwrap();
        assert!(plan(&ledger).iter().any(|step| step.contains("pilothouse-node.service")));
        let left = execute(&paths, false).unwrap();
        assert!(left.is_empty(), "{left:?}");
        let (cni, kubelet) = (paths.at("/var/lib/cni"), paths.at("/var/lib/kubelet"));
        for gone in [paths.state(), paths.run(), paths.at("/opt/pilothouse"), paths.unit(), paths.logs(), cni] {
            assert!(!gone.exists(), "{}", gone.display());
        }
        assert!(paths.at("/etc/mine").exists() && kubelet.join("device-plugins/other.sock").exists());
        assert!(execute(&paths, false).is_ok(), "a second reset is fine");
    }

    #[test]
    fn a_refused_attempt_leaves_nothing_and_a_member_keeps_everything() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let write = || {
            fs::create_dir_all(paths.pki().join("1")).unwrap();
            fs::write(paths.state().join("machine.key"), "k").unwrap();
        };
        write();
        forget_attempt(&paths).unwrap();
        assert!(!paths.state().exists());
        write();
        crate::ledger::bury(&paths.tombstone(), "nod_x").unwrap();
        forget_attempt(&paths).unwrap();
        assert!(paths.pki().exists());
    }

    #[test]
    fn a_tombstone_outlives_the_reset() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        ledger(&paths);
        crate::ledger::bury(&paths.tombstone(), "nod_x").unwrap();
        execute(&paths, true).unwrap();
        assert!(paths.logs().exists(), "they may tell why");
        assert!(paths.tombstone().exists() && !paths.ledger().exists());
    }

    #[test]
    fn a_foreign_mount_is_unmounted_and_its_content_lives() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path().join("machine"));
        ledger(&paths);
        let volume = paths.state().join("kubelet/pods/x/volume");
        let theirs = dir.path().join("theirs");
        fs::create_dir_all(&volume).unwrap();
        fs::create_dir_all(&theirs).unwrap();
        fs::write(theirs.join("precious"), "theirs").unwrap();
        mount(Some(&theirs), &volume, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        execute(&paths, false).unwrap();
        assert!(theirs.join("precious").exists());
        assert!(!paths.state().exists());
    }
}
