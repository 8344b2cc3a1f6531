//! Keeps children running: adopts or starts them, starts them again after a pause that grows, replaces them when their
//! configuration changed, keeps their logs from filling the disk.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use node_linux::files::{self, FileError};
use node_linux::{Backoff, describe, log};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::child::{self, ChildSpec, Running};
use crate::status::{Board, Process};

/// How long a child may take to end after TERM.
const GRACE: Duration = Duration::from_secs(8);

/// A log longer than this many bytes moves to `.1`.
pub const LOG_LIMIT: u64 = 10 * 1024 * 1024;

/// One child that is being kept.
#[derive(Debug)]
pub struct Supervisor {
    spec: watch::Sender<ChildSpec>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Supervisor {
    /// Starts keeping a child.
    pub fn new(spec: ChildSpec, board: Board, trampoline: bool) -> Self {
        let (spec, wanted) = watch::channel(spec);
        let stop = CancellationToken::new();
        let supervision = Supervision { wanted, board, trampoline, stop: stop.clone(), restarts: 0 };
        Self { spec, stop, task: tokio::spawn(supervision.run()) }
    }

    /// Says what the child should be from now on; a child that is that already goes on untouched.
    pub fn want(&self, spec: ChildSpec) {
        self.spec.send_if_modified(|old| {
            let changed = *old != spec;
            *old = spec;
            changed
        });
    }

    /// Ends the child and stops keeping it.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

struct Supervision {
    wanted: watch::Receiver<ChildSpec>,
    board: Board,
    trampoline: bool,
    stop: CancellationToken,
    restarts: u32,
}

enum Ended {
    Stopped,
    Replaced,
    ByItself(String),
}

impl Supervision {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let spec = self.wanted.borrow_and_update().clone();
            let began = Instant::now();
            match self.once(&spec).await {
                Ended::Stopped => return self.show(&spec, 0, "stopped"),
                Ended::Replaced => continue,
                Ended::ByItself(how) => {
                    tracing::warn!(child = spec.name, how, log = %spec.log.display(), "child ended")
                }
            }
            self.restarts += 1;
            self.show(&spec, 0, "backoff");
            tokio::select! {
                () = tokio::time::sleep(backoff.pause_after(began.elapsed())) => {}
                () = self.stop.cancelled() => return self.show(&spec, 0, "stopped"),
            }
        }
    }

    /// One life of the child.
    async fn once(&mut self, spec: &ChildSpec) -> Ended {
        let mut running = match self.begin(spec).await {
            Ok(running) => running,
            Err(error) => return Ended::ByItself(describe(&error)),
        };
        self.show(spec, running.pid(), "running");
        tokio::select! {
            how = running.wait() => {
                let _ = files::remove(&spec.pid_file);
                return Ended::ByItself(how);
            }
            changed = self.wanted.changed() => if changed.is_ok() && self.wanted.borrow().digest == spec.digest {
                return Ended::Replaced; // adopted again at once: only what does not matter to the process changed
            },
            () = self.stop.cancelled() => {}
        }
        running.stop(GRACE).await;
        let _ = files::remove(&spec.pid_file);
        if self.stop.is_cancelled() { Ended::Stopped } else { Ended::Replaced }
    }

    /// Adopts the child of an earlier agent, or starts one.
    async fn begin(&self, spec: &ChildSpec) -> Result<Running, FileError> {
        match child::adopt(spec) {
            Some(running) if !child::outdated(&running, spec) => {
                tracing::info!(child = spec.name, pid = running.pid(), "adopted");
                return Ok(running);
            }
            Some(running) => running.stop(GRACE).await,
            None => {}
        }
        let running = child::start(spec, self.trampoline)?;
        tracing::info!(child = spec.name, pid = running.pid(), "started");
        Ok(running)
    }

    fn show(&self, spec: &ChildSpec, pid: u32, state: &str) {
        let process = Process { name: spec.name.into(), pid, state: state.into(), restarts: self.restarts };
        self.board.process(process);
    }
}

/// Rotates the logs of a directory until stopped.
pub async fn rotate_logs(dir: PathBuf, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(log::ROTATE_EVERY)).await.is_some() {
        log::rotate_all(log::find(&dir), LOG_LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::tests::sleeper;

    async fn until(board: &Board, wanted: impl Fn(&Process) -> bool) -> Process {
        let mut changes = board.changes();
        let seen = async {
            loop {
                if let Some(process) = board.status().processes.iter().find(|process| wanted(process)) {
                    return process.clone();
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap()
    }

    #[tokio::test]
    async fn a_dead_child_is_started_again_and_stop_means_stop() {
        let dir = tempfile::tempdir().unwrap();
        let board = Board::new(dir.path().join("status.json"));
        let supervisor = Supervisor::new(sleeper(dir.path(), "300"), board.clone(), false);
        let first = until(&board, |process| process.state == "running").await;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(first.pid.cast_signed()), nix::sys::signal::SIGKILL).unwrap();
        let second = until(&board, |process| process.state == "running" && process.restarts == 1).await;
        assert_ne!(first.pid, second.pid);
        supervisor.stop().await;
        assert_eq!(board.status().processes[0].state, "stopped");
        assert!(child::Identity::load(&dir.path().join("sleeper.json")).is_none());
    }

    #[tokio::test]
    async fn a_new_supervisor_adopts_and_a_new_configuration_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let spec = sleeper(dir.path(), "300");
        let orphan = child::start(&spec, false).unwrap();
        let board = Board::new(dir.path().join("status.json"));
        let supervisor = Supervisor::new(spec.clone(), board.clone(), false);
        let adopted = until(&board, |process| process.state == "running").await;
        assert_eq!(adopted.pid, orphan.pid());
        // The test is the orphan's real parent: reap it, as init would.
        let reaper = tokio::spawn(async move {
            let mut orphan = orphan;
            orphan.wait().await
        });
        supervisor.want(ChildSpec { digest: "two".into(), ..spec });
        let replaced = until(&board, |process| process.state == "running" && process.pid != adopted.pid).await;
        assert_eq!(replaced.restarts, 0, "a wanted change is no failure");
        reaper.await.unwrap();
        supervisor.stop().await;
    }
}
