//! The embedded host's own processes: started in their network namespace and cgroup, started again when they end, and
//! stopped in order. Their output goes to one log file each.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node_linux::environment::PROXY_VARIABLES;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cgroup;

/// A log longer than this many bytes is set aside (`.1`), of which one is kept.
const LOG_LIMIT: u64 = 32 << 20;
const LOG_MODE: u32 = 0o640;
/// How often logs are measured.
const LOG_ROUND: Duration = Duration::from_secs(60);
/// Enters the cgroup and becomes the program: whatever runs is in the ledger before it does anything.
const ENTER: &str = "for procs in $0; do echo $$ > \"$procs\" || exit 1; done; exec \"$@\"";
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A process that ran this long was well: the next failure starts from the shortest pause again.
const WELL: Duration = Duration::from_secs(30);

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
        let log = open_log(&self.log)?;
        let mut command = Command::new("nsenter");
        // They talk to each other, at addresses that no proxy can reach.
        for name in PROXY_VARIABLES {
            command.env_remove(name);
        }
        command
            .arg(format!("--net={}", self.netns.display()))
            .args(["--", "sh", "-c", ENTER])
            .arg(cgroup::make_everywhere(&self.cgroup)?)
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(key, value)| (*key, value.as_str())))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Its own process group: a Ctrl-C in the terminal stops us, and we stop it, in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", self.name))
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
    let mut pause = SHORTEST_PAUSE;
    loop {
        let begun = Instant::now();
        tokio::select! {
            () = cancel.cancelled() => return process.stop(&mut child).await,
            status = child.wait() => {
                let text = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                warn!("{} ended ({text}); it is started again; its log: {}", process.name, process.log.display());
            }
        }
        pause = if begun.elapsed() > WELL { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        match again(&process, pause, &cancel).await {
            Some(next) => child = next,
            None => return,
        }
        info!("{} runs again", process.name);
    }
}

/// Starts a process again after a pause, until it starts or nobody wants it any more.
async fn again(process: &Process, mut pause: Duration, cancel: &CancellationToken) -> Option<Child> {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return None,
            () = sleep(pause) => {}
        }
        match process.spawn() {
            Ok(child) => return Some(child),
            Err(error) => warn!("{} does not start: {error:#}", process.name),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Keeps the logs of these directories short until `cancel`. The API server does so with its audit log itself.
pub async fn keep_logs_short(logs: PathBuf, machines: PathBuf, cancel: CancellationToken) {
    while cancel.run_until_cancelled(sleep(LOG_ROUND)).await.is_some() {
        for log in long_logs(&logs, &machines, LOG_LIMIT) {
            if let Err(error) = shorten(&log) {
                warn!("{} grows: {error}", log.display());
            }
        }
    }
}

/// What is longer than `limit` bytes of `logs/*.log` and `machines/*/console.log`.
fn long_logs(logs: &Path, machines: &Path, limit: u64) -> Vec<PathBuf> {
    let inside = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let own = inside(logs).filter(|path| {
        let audit = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"audit"));
        !audit && path.extension().is_some_and(|kind| kind == "log")
    });
    let consoles = inside(machines).map(|machine| machine.join("console.log"));
    own.chain(consoles).filter(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > limit)).collect()
}

/// Copies and cuts: whoever writes keeps its open file, which appends.
fn shorten(log: &Path) -> std::io::Result<()> {
    fs::copy(log, log.with_extension("log.1"))?;
    OpenOptions::new().write(true).open(log)?.set_len(0)
}

/// Opens a log to append to, for its owner and the owner's group: logs name tenants and what they do. One that was made open is closed.
pub fn open_log(path: &Path) -> Result<File> {
    let parent = path.parent().context("a log has a directory")?;
    fs::create_dir_all(parent)?;
    let file = OpenOptions::new().create(true).append(true).mode(LOG_MODE).open(path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    file.set_permissions(fs::Permissions::from_mode(LOG_MODE))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_long_log_is_set_aside_under_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let (logs, machines) = (dir.path().join("logs"), dir.path().join("machines"));
        fs::create_dir_all(machines.join("m1")).unwrap();
        let mut etcd = open_log(&logs.join("etcd.log")).unwrap();
        etcd.write_all(b"a long line").unwrap();
        fs::write(logs.join("audit.log"), "a long line").unwrap();
        fs::write(logs.join("node.log"), "short").unwrap();
        fs::write(machines.join("m1/console.log"), "a long line").unwrap();
        let mut long = long_logs(&logs, &machines, 8);
        long.sort();
        assert_eq!(long, [logs.join("etcd.log"), machines.join("m1/console.log")]);
        shorten(&long[0]).unwrap();
        etcd.write_all(b"next").unwrap();
        assert_eq!(fs::read_to_string(logs.join("etcd.log")).unwrap(), "next");
        assert_eq!(fs::read_to_string(logs.join("etcd.log.1")).unwrap(), "a long line");
        for log in ["etcd.log", "etcd.log.1"] {
            assert_eq!(fs::metadata(logs.join(log)).unwrap().permissions().mode() & 0o777, 0o640, "{log}");
        }
    }

    #[tokio::test]
    async fn nothing_is_started_again_for_a_group_that_is_gone() {
        let group = Group::default();
        let cancel = group.cancel.clone();
        drop(group);
        assert!(cancel.is_cancelled());
    }
}
