//! What keeps the embedded host from running.

use std::error::Error as StdError;
use std::fmt::Display;

use bundle::BundleError;
use node_linux::cgroup::Stuck;
use node_linux::files::FileError;
use node_linux::tool::ToolError;
use thiserror::Error;

/// Why something about the embedded host failed. All of it is for the platform operator.
#[derive(Debug, Error)]
pub enum HostError {
    /// A step failed.
    #[error("{what}")]
    Step {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// What was found is not what is needed, or did not come in time.
    #[error("{0}")]
    Unfit(String),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A program failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The bundle lacks something.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The host's API server refused something, or did not answer.
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
    /// Something could not be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Processes do not end.
    #[error(transparent)]
    Stuck(#[from] Stuck),
}

/// What anything of this crate answers.
pub type Result<T, E = HostError> = std::result::Result<T, E>;

/// Says what was being done when something failed, or what is missing.
pub(crate) trait DuringStep<T> {
    /// With a text that is there.
    fn during(self, what: &str) -> Result<T>;
    /// With one that is made only when it is needed.
    fn during_step<W: Display>(self, what: impl FnOnce() -> W) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> DuringStep<T> for std::result::Result<T, E> {
    fn during(self, what: &str) -> Result<T> {
        self.during_step(|| what)
    }

    fn during_step<W: Display>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|source| HostError::Step { what: what().to_string(), source: source.into() })
    }
}

impl<T> DuringStep<T> for Option<T> {
    fn during(self, what: &str) -> Result<T> {
        self.during_step(|| what)
    }

    fn during_step<W: Display>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.ok_or_else(|| HostError::Unfit(what().to_string()))
    }
}
