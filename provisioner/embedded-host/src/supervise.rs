//! The embedded host's own processes: started in their network namespace and cgroup, started again when they end, and
//! stopped in order. Their output goes to one log file each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{DuringStep, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node_linux::cgroup::Cgroups;
use node_linux::environment::PROXY_VARIABLES;
use node_linux::{Backoff, log};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A log longer than this many bytes is set aside (`.1`), of which one is kept.
const LOG_LIMIT: u64 = 32 << 20;
/// Enters the cgroup and becomes the program: whatever runs is in the ledger before it does anything.
const ENTER: &str = "for procs in $0; do echo $$ > \"$procs\" || exit 1; done; exec \"$@\"";

/// One process to keep alive.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its name in logs and in `status`.
    pub name: &'static str,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments; never a secret.
    pub args: Vec<String>,
    /// Added to its environment.
    pub env: Vec<(&'static str, String)>,
    /// The network namespace to run in.
    pub netns: PathBuf,
    /// Its cgroup, relative to the hierarchy's root.
    pub cgroup: String,
    /// Where its output goes.
    pub log: PathBuf,
    /// How long it may take to stop.
    pub grace: Duration,
}

impl Process {
    fn spawn(&self) -> Result<Child> {
        let log = log::open(&self.log)?;
        let mut command = Command::new("nsenter");
        // They talk to each other, at addresses that no proxy can reach.
        for name in PROXY_VARIABLES {
            command.env_remove(name);
        }
        command
            .arg(format!("--net={}", self.netns.display()))
            .args(["--", "sh", "-c", ENTER])
            .arg(entries(&self.cgroup)?)
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(key, value)| (*key, value.as_str())))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Its own process group: a Ctrl-C in the terminal stops us, and we stop it, in order.
            .process_group(0)
            .spawn()
            .during_step(|| format!("start {}", self.name))
    }

    async fn stop(&self, child: &mut Child) {
        let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        if timeout(self.grace, child.wait()).await.is_err() {
            warn!("{} did not stop within {:?}: killed", self.name, self.grace);
            child.kill().await.ok();
        }
    }
}

/// The files to enter a cgroup by, with blanks between; an instance's name has none. A child must not count as the platform's own process,
/// so the one that bounds memory is among them.
fn entries(cgroup: &str) -> Result<String> {
    let files = Cgroups::detect().create_for_tracking(cgroup)?;
    Ok(files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" "))
}

/// Processes that are kept alive together and stopped together. One that is dropped starts nothing again.
#[derive(Debug, Default)]
pub struct Group {
    cancel: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Group {
    /// Starts a process and keeps it alive until [`Group::stop`]. The first start must succeed.
    pub fn keep(&self, process: Process) -> Result<()> {
        let first = process.spawn()?;
        let task = tokio::spawn(watch(process, first, self.cancel.clone()));
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        Ok(())
    }

    /// Stops every process of the group and waits for their ends.
    pub async fn stop(&self) {
        self.cancel.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        futures::future::join_all(tasks).await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn watch(process: Process, mut child: Child, cancel: CancellationToken) {
    let mut backoff = Backoff::default();
    loop {
        let begun = Instant::now();
        tokio::select! {
            () = cancel.cancelled() => return process.stop(&mut child).await,
            status = child.wait() => {
                let text = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                warn!("{} ended ({text}); it is started again; its log: {}", process.name, process.log.display());
            }
        }
        match restart(&process, begun.elapsed(), &mut backoff, &cancel).await {
            Some(next) => child = next,
            None => return,
        }
        info!("{} runs again", process.name);
    }
}

/// Starts a process again that ran so long, after a pause, until it starts or nobody wants it any more.
async fn restart(
    process: &Process,
    mut ran: Duration,
    backoff: &mut Backoff,
    cancel: &CancellationToken,
) -> Option<Child> {
    loop {
        cancel.run_until_cancelled(sleep(backoff.pause_after(ran))).await?;
        match process.spawn() {
            Ok(child) => return Some(child),
            Err(error) => warn!("{} does not start: {error:#}", process.name),
        }
        ran = Duration::ZERO;
    }
}

/// Rotates the logs of these directories until `cancel`. The API server does so with its audit log itself.
pub async fn rotate_logs(logs: PathBuf, machines: PathBuf, cancel: CancellationToken) {
    while cancel.run_until_cancelled(sleep(log::ROTATE_EVERY)).await.is_some() {
        log::rotate_all(find_logs(&logs, &machines), LOG_LIMIT);
    }
}

/// `logs/*.log`, but for the audit log, and `machines/*/console.log`.
fn find_logs(logs: &Path, machines: &Path) -> Vec<PathBuf> {
    let is_audit = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"audit"));
    let own = log::find(logs).into_iter().filter(|path| !is_audit(path));
    let machines = fs::read_dir(machines).into_iter().flatten().flatten();
    own.chain(machines.map(|machine| machine.path().join("console.log"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_log_is_rotated_but_the_one_that_is_rotated_by_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, machines) = (dir.path().join("logs"), dir.path().join("machines"));
        for file in ["logs/etcd.log", "logs/etcd.log.1", "logs/audit.log", "machines/m1/console.log"] {
            log::open(&dir.path().join(file)).unwrap();
        }
        assert_eq!(find_logs(&logs, &machines), [logs.join("etcd.log"), machines.join("m1/console.log")]);
    }

    #[tokio::test]
    async fn nothing_is_started_again_for_a_group_that_is_gone() {
        let group = Group::default();
        let cancel = group.cancel.clone();
        drop(group);
        assert!(cancel.is_cancelled());
    }
}
