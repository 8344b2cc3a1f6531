//! The embedded host's own processes: started in their network namespace and cgroup, started again when they end, and
//! stopped in order. Their output goes to one log file each.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cgroup;

/// A log longer than this many bytes is set aside (`.1`) when its process starts.
const LOG_LIMIT: u64 = 32 << 20;
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
        let child = Command::new("nsenter")
            .arg(format!("--net={}", self.netns.display()))
            .arg("--")
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(key, value)| (*key, value.as_str())))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Its own process group: a Ctrl-C in the terminal stops us, and we stop it, in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        if let Some(pid) = child.id() {
            cgroup::place(&self.cgroup, pid)?;
        }
        Ok(child)
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

/// Processes that are kept alive together and stopped together.
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

fn open_log(path: &Path) -> Result<File> {
    if fs::metadata(path).is_ok_and(|meta| meta.len() > LOG_LIMIT) {
        fs::rename(path, path.with_extension("log.1")).ok();
    }
    let parent = path.parent().context("a log has a directory")?;
    fs::create_dir_all(parent)?;
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("open {}", path.display()))
}
