//! What the platform, its local machines and the node agent do to a Linux machine, once for all of them: cgroups, tools, mounts, files that are
//! replaced in one step, the logs and pauses of supervised processes, kernel values and how they are put back, the environment of the programs
//! they start; and what they ask of one: a list of checks, each with its name, severity and remedy. `pilothouse doctor` and `up` are one face of
//! that list, the agent's preflight is the other.
//!
//! Nothing here depends on another crate of the workspace, and nothing here knows what a cluster is.

pub mod backoff;
pub mod cgroup;
pub mod check;
pub mod environment;
mod error;
pub mod files;
pub mod firewall;
pub mod footprint;
pub mod log;
pub mod mounts;
pub mod resolver;
pub mod resources;
pub mod storage;
pub mod surroundings;
pub mod sysctl;
pub mod system;
pub mod tool;

pub use backoff::Backoff;
pub use check::{Check, Verdict};
pub use error::describe;
