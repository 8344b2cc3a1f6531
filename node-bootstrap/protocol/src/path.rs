//! Where on the portal a joining machine finds what it runs first.

/// The script that the join command runs.
pub const INSTALL_SCRIPT: &str = "/install/agent.sh";
/// The node agent.
pub const AGENT: &str = "/install/pilothouse-node";
/// The agent's checksum, in the form that `sha256sum --check` reads.
pub const AGENT_CHECKSUM: &str = "/install/pilothouse-node.sha256";
