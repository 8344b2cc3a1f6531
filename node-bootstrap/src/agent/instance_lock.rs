//! One agent per machine: two would supervise the same processes against each other.
//!
//! The claim is a lock, which ends with its process however that ends; the pid file beside it says who has it.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use node_linux::files;

use super::AgentError;
use crate::child::Identity;

/// The claim to be the only agent on the machine.
pub(super) struct InstanceLock {
    pid_file: PathBuf,
    _lock: File,
}

impl InstanceLock {
    /// Claims it, or names the one that has it.
    pub(super) fn claim(pid_file: &Path) -> Result<Self, AgentError> {
        let path = pid_file.with_extension("lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = open.map_err(files::io("open", &path))?;
        let own = std::process::id();
        let other = Identity::load(pid_file).map(|other| other.pid).filter(|other| *other != own);
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AgentError::Running(other.unwrap_or_default())),
            Err(TryLockError::Error(error)) => return Err(files::io("lock", &path)(error).into()),
        }
        // An agent of before this lock has the pid file alone.
        if let Some(other) = other {
            return Err(AgentError::Running(other));
        }
        if let Some(me) = Identity::of(own, "") {
            files::write_json(pid_file, &me, 0o644)?;
        }
        Ok(Self { pid_file: pid_file.to_owned(), _lock: lock })
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        let _ = files::remove(&self.pid_file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_at_once_one_is_refused_and_the_next_is_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.json");
        let first = InstanceLock::claim(&file).unwrap();
        files::remove(&file).unwrap();
        assert!(matches!(InstanceLock::claim(&file), Err(AgentError::Running(_))), "without a pid file too");
        drop(first);
        InstanceLock::claim(&file).unwrap();
    }
}
