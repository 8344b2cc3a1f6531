//! One agent per machine: two would supervise the same processes against each other.

use std::path::{Path, PathBuf};

use super::AgentError;
use crate::child::Identity;
use crate::files;

/// The claim to be the only agent on the machine; a pid file.
pub(super) struct Lone(PathBuf);

impl Lone {
    /// Claims it, or names the one that has it.
    pub(super) fn claim(file: &Path) -> Result<Self, AgentError> {
        let own = std::process::id();
        if let Some(other) = Identity::load(file).filter(|other| other.pid != own) {
            return Err(AgentError::Running(other.pid));
        }
        if let Some(me) = Identity::of(own, "") {
            files::write_json(file, &me, 0o644)?;
        }
        Ok(Self(file.to_owned()))
    }
}

impl Drop for Lone {
    fn drop(&mut self) {
        let _ = files::remove(&self.0);
    }
}
