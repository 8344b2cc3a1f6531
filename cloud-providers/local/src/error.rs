//! What can go wrong while a machine container is made or removed.

use std::path::PathBuf;

use cloud_providers::{ProviderError, ProviderErrorClass};
use node_linux::describe;
use node_linux::files::FileError;
use node_linux::tool::ToolError;
use thiserror::Error;

use crate::crash_loop::WINDOW;

/// A failure of the `local` provider; all of them are the platform's or its machine's.
#[derive(Debug, Error)]
pub enum LocalError {
    /// A file or directory could not be used.
    #[error("use {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be replaced, or a cgroup not be used.
    #[error(transparent)]
    Files(#[from] FileError),
    /// A tool of the machine failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A system call failed.
    #[error("{what}")]
    Call {
        /// What was attempted.
        what: String,
        /// Why it failed.
        #[source]
        source: nix::Error,
    },
    /// A file of ours does not say what it should.
    #[error("understand {path}")]
    Corrupt {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Every address of the bridge is taken.
    #[error("every address of {subnet} is taken")]
    Full {
        /// The bridge's range.
        subnet: ipnet::Ipv4Net,
    },
    /// The machine ended before it was a machine.
    #[error("the machine ended while starting: {console}")]
    Ended {
        /// The end of its console.
        console: String,
    },
    /// The trial of an isolated machine failed.
    #[error("this machine cannot isolate local machines: {said}")]
    NotIsolated {
        /// What its stages said.
        said: String,
    },
    /// It ended again and again; the next start waits.
    #[error("the machine ended by itself {times} times within {} minutes: {console}", WINDOW.as_secs() / 60)]
    CrashLoop {
        /// How often.
        times: usize,
        /// The end of its console.
        console: String,
    },
    /// Every range of ids of this instance is taken.
    #[error("every range of user ids for local machines is taken")]
    NoUsers,
    /// Made before machines had user namespaces.
    #[error("it was made without isolation, and this instance starts only isolated machines")]
    SharesKernel,
    /// None is started, by the operator's rule.
    #[error("{why}")]
    Closed {
        /// The rule.
        why: String,
    },
    /// Processes that do not end.
    #[error("processes of machine {id} do not end")]
    Stuck {
        /// Which machine.
        id: String,
    },
    /// Nobody made this machine.
    #[error("there is no machine {id}")]
    Unknown {
        /// Which machine.
        id: String,
    },
}

impl LocalError {
    /// Ties an input or output error to its file.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// Ties an error number to what was attempted.
    pub fn call(what: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let what = what.into();
        move |source| Self::Call { what, source }
    }

    fn remediation(&self) -> &'static str {
        match self {
            Self::Full { .. } | Self::NoUsers => "remove machines, or use machines of your own",
            Self::Unknown { .. } => "make it again",
            Self::SharesKernel => "remove its node: the pool makes another",
            Self::NotIsolated { .. } => {
                "it needs a kernel from 5.19 on that lets root make user namespaces, and idmapped mounts of the cache's file system"
            }
            Self::Closed { .. } => {
                "the operator's `pilothouse up` says the same; machines of your own are not concerned"
            }
            Self::CrashLoop { .. } => {
                "read the machine's console.log in the data directory; it is started again once a minute"
            }
            Self::Ended { .. } => "read the machine's console.log in the data directory",
            _ => "run `pilothouse doctor` on the platform's machine",
        }
    }
}

impl From<LocalError> for ProviderError {
    fn from(error: LocalError) -> Self {
        let class = match error {
            LocalError::Full { .. } | LocalError::NoUsers => ProviderErrorClass::Quota,
            _ => ProviderErrorClass::Platform,
        };
        Self::retryable(class, describe(&error), error.remediation())
    }
}
