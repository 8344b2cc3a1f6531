//! What the platform (`pilothouse up`, `doctor`) and the node agent (`preflight`, while it runs) both ask of a Linux machine: one list of
//! checks, each with its name, severity and remedy, and the environment that both give the programs they start.
//!
//! Nothing here changes a machine, and nothing here depends on another crate of the workspace.

pub mod check;
pub mod environment;
pub mod firewall;
pub mod mounts;
pub mod resolver;
pub mod storage;
pub mod system;

pub use check::{Check, Verdict};
