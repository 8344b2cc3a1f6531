//! What ends the agent, and whether starting it again can help.

use node_linux::files::FileError;

use crate::connect::ConnectError;
use crate::enroll::EnrollError;
use crate::fetch::FetchError;
use crate::network;
use crate::reset::ResetError;
use crate::runtime::RuntimeError;

/// What ends the agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The platform removed this node.
    #[error(
        "node {0} was removed from its cluster; this machine stays out until someone runs `pilothouse-node join` with a new token"
    )]
    Removed(String),
    /// Nobody told it where to join.
    #[error("this machine has not joined a cluster and {0} does not exist; run the join command from the portal")]
    NotJoined(String),
    /// Another agent runs.
    #[error("another agent already runs on this machine (pid {0})")]
    Running(u32),
    /// Enrollment.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// The gateway's address.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The configuration misses or garbles something.
    #[error("the platform's configuration: {0}")]
    Config(String),
    /// A part.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The node's processes.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The node-local API address.
    #[error(transparent)]
    Network(#[from] network::NetworkError),
    /// Going for good.
    #[error(transparent)]
    Reset(#[from] ResetError),
}

impl AgentError {
    /// True when starting the agent again cannot help.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Removed(_) | Self::NotJoined(_) => true,
            Self::Enroll(error) => !error.may_pass(),
            _ => false,
        }
    }
}
