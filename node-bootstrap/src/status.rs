//! How the node does: kept in memory, written to `status.json`, shown by `pilothouse-node status`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use node_linux::files;
use node_protocol::Check;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Where the node is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Getting its certificates or parts, or its processes are not up yet.
    #[default]
    Starting,
    /// Everything answers.
    Ready,
    /// Something that was up is not.
    Degraded,
    /// Going down on request.
    Stopping,
    /// Down.
    Stopped,
}

/// One supervised process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its name.
    pub name: String,
    /// Its process id; 0 while it does not run.
    pub pid: u32,
    /// `running`, `backoff` or `stopped`.
    pub state: String,
    /// How often it was started again.
    pub restarts: u32,
}

/// What `status.json` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where the node is in its life.
    pub phase: Phase,
    /// What it is doing, or what is wrong, for people.
    pub message: String,
    /// How the link to the platform does, for people; empty for a node without one.
    #[serde(default)]
    pub link: String,
    /// Its processes.
    pub processes: Vec<Process>,
    /// Images imported.
    pub images: usize,
    /// What others on the machine do to the node, each with its remedy.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Why the platform's last configuration was refused, if it was.
    #[serde(default)]
    pub refusal: Option<Check>,
    /// When this was written, in seconds since 1970.
    pub updated_at: u64,
}

impl Status {
    /// What is wrong that restarting nothing mends: what others on the machine do, and a configuration that was refused.
    pub fn failing(&self) -> Vec<Check> {
        self.checks.iter().chain(&self.refusal).cloned().collect()
    }
}

/// The one place where parts of the agent say how they do.
#[derive(Debug, Clone)]
pub struct Board {
    file: PathBuf,
    status: Arc<Mutex<Status>>,
    changed: watch::Sender<u64>,
}

impl Board {
    /// A board that writes to `file` (its directory must exist).
    pub fn new(file: PathBuf) -> Self {
        Self { file, status: Arc::default(), changed: watch::Sender::new(0) }
    }

    /// The present state.
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// Wakes at each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where the node is.
    pub fn phase(&self, phase: Phase, message: impl Into<String>) {
        let message = message.into();
        self.update(|status| {
            status.phase = phase;
            status.message = message;
        });
    }

    /// Says how the link to the platform does.
    pub fn link(&self, text: String) {
        self.update(|status| status.link = text);
    }

    /// Counts imported images.
    pub fn images(&self, count: usize) {
        self.update(|status| status.images = count);
    }

    /// Says what others on the machine do to the node.
    pub fn checks(&self, checks: Vec<Check>) {
        self.update(|status| status.checks = checks);
    }

    /// Says why a configuration was refused; `None` when one was accepted.
    pub fn refusal(&self, refusal: Option<Check>) {
        self.update(|status| status.refusal = refusal);
    }

    /// Says how a process does.
    pub fn process(&self, process: Process) {
        self.update(|status| {
            status.processes.retain(|known| known.name != process.name);
            status.processes.push(process);
            status.processes.sort_by(|a, b| a.name.cmp(&b.name));
        });
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        let mut status = self.lock();
        let before = status.clone();
        change(&mut status);
        if *status == before {
            return;
        }
        status.updated_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // The file is for people and scripts; the agent lives without it.
        if let Err(error) = files::write_json(&self.file, &*status, 0o644) {
            tracing::debug!(%error, "status not written");
        }
        drop(status);
        self.changed.send_modify(|version| *version += 1);
    }
}

/// The text for people.
pub fn human(status: &Status) -> String {
    let mut lines = vec![format!("{:?}: {}", status.phase, status.message)];
    if !status.link.is_empty() {
        lines.push(format!("link {}", status.link));
    }
    for process in &status.processes {
        let Process { name, pid, state, restarts } = process;
        lines.push(format!("  {name:<12} {state:<8} pid {pid:<8} restarts {restarts}"));
    }
    for check in status.failing() {
        lines.push(format!("  {}: {}\n    → {}", check.id, check.observed, check.remediation));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_written_once_and_wakes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("status.json");
        let board = Board::new(file.clone());
        let mut changes = board.changes();
        board.phase(Phase::Ready, "all well");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        board.phase(Phase::Ready, "all well");
        assert!(!changes.has_changed().unwrap(), "the same again is no change");
        let read: Status = files::read_json(&file).unwrap().unwrap();
        assert_eq!((read.phase, read.message.as_str()), (Phase::Ready, "all well"));
        assert!(std::fs::read_to_string(&file).unwrap().contains("\"ready\""));
    }
}
