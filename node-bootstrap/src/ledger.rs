//! What the agent was last told, and everything it put on the machine.
//!
//! Written before the deed, so that `reset` removes exactly what was installed, even after a crash in the middle. The generation
//! is a fence: an older configuration, or another one under the same number, is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use node_linux::files::{self, FileError};
use node_protocol::{NodeConfig, Removal};
use serde::{Deserialize, Serialize};

/// Who the machine is in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// `nod_…`
    pub node_id: String,
    /// `cls_…`
    pub cluster_id: String,
    /// The node's name.
    pub node_name: String,
    /// Labels the user chose.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The public part of the token that let it in: which line was pasted.
    #[serde(default)]
    pub token_id: String,
}

impl Membership {
    /// Whether a removal is of this very node.
    pub fn is_in(&self, removal: &Removal) -> bool {
        self.node_id == removal.node_id && self.cluster_id == removal.cluster_id
    }

    /// The public part of a join token, `pilothouse_join_<id>_<secret>`; empty for a text of another shape.
    pub fn token_id(token: &str) -> String {
        let rest = token.strip_prefix("pilothouse_join_").unwrap_or_default();
        rest.split_once('_').map(|(id, _)| id.to_owned()).unwrap_or_default()
    }
}

/// Everything put on the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Installed {
    /// Single files.
    pub files: BTreeSet<PathBuf>,
    /// Directories that are the agent's alone.
    pub dirs: BTreeSet<PathBuf>,
    /// Directories that others may use too: removed only when empty.
    pub shared_dirs: BTreeSet<PathBuf>,
    /// The systemd unit's name.
    pub unit: Option<String>,
    /// Addresses on `lo`.
    pub addresses: BTreeSet<String>,
    /// nftables tables, as `family name`.
    pub tables: BTreeSet<String>,
    /// Control groups.
    pub cgroups: BTreeSet<String>,
    /// The CNI network's name.
    pub network: Option<String>,
    /// Sysctls that were changed, with their former values.
    pub sysctls: BTreeMap<PathBuf, String>,
}

/// The ledger.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Who the machine is; absent before enrollment.
    pub membership: Option<Membership>,
    /// The last accepted configuration.
    pub config: Option<NodeConfig>,
    /// The signing key that this node trusts for its parts: from the line that joined, then each successor. Empty: none was told yet.
    pub signing_key: String,
    /// Everything put on the machine.
    pub installed: Installed,
}

/// A configuration that is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// The platform said something older.
    #[error("configuration {offered} is older than {accepted}, which this node already follows")]
    Older {
        /// What came.
        offered: u64,
        /// What is followed.
        accepted: u64,
    },
    /// The platform said something else under the same number.
    #[error("configuration {0} came again with other content")]
    Changed(u64),
}

/// What became of an offered configuration.
#[derive(Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It is the one already followed.
    Same,
    /// It is new; the ledger has it now.
    New,
}

/// Why a node is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// `nod_…`
    pub node_id: String,
    /// When, in seconds since 1970.
    pub removed_at: u64,
}

impl Ledger {
    /// Reads the ledger; an absent one is empty.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        Ok(files::read_json(path)?.unwrap_or_default())
    }

    /// Writes the ledger.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        files::write_json(path, self, 0o600)
    }

    /// Takes an offered configuration if the fence lets it through.
    pub fn accept(&mut self, offered: NodeConfig) -> Result<Accepted, FenceError> {
        let Some(followed) = self.config.as_ref() else {
            self.config = Some(offered);
            return Ok(Accepted::New);
        };
        if offered == *followed {
            return Ok(Accepted::Same);
        }
        if offered.generation < followed.generation {
            return Err(FenceError::Older { offered: offered.generation, accepted: followed.generation });
        }
        if offered.generation == followed.generation {
            return Err(FenceError::Changed(offered.generation));
        }
        self.config = Some(offered);
        Ok(Accepted::New)
    }
}

/// Says that this machine's node is gone and must not come back by itself.
pub fn bury(path: &Path, node_id: &str) -> Result<(), FileError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let tombstone = Tombstone { node_id: node_id.to_owned(), removed_at: now.map_or(0, |since| since.as_secs()) };
    if let Some(dir) = path.parent() {
        files::make_dir(dir)?;
    }
    files::write_json(path, &tombstone, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(generation: u64, label: &str) -> NodeConfig {
        NodeConfig { generation, label: label.into(), ..NodeConfig::default() }
    }

    #[test]
    fn a_token_is_known_by_its_public_part() {
        assert_eq!(Membership::token_id("pilothouse_join_01abc_se_cret"), "01abc");
        for other in ["", "nonsense", "pilothouse_join_nonsense"] {
            assert_eq!(Membership::token_id(other), "", "{other}");
        }
    }

    #[test]
    fn only_its_own_removal_concerns_a_node() {
        let own = Membership {
            node_id: "nod_x".into(),
            cluster_id: "cls_x".into(),
            node_name: "n1".into(),
            labels: BTreeMap::new(),
            token_id: String::new(),
        };
        let removal = |node: &str, cluster: &str| Removal {
            node_id: node.into(),
            cluster_id: cluster.into(),
            ..Removal::default()
        };
        assert!(own.is_in(&removal("nod_x", "cls_x")));
        for (node, cluster) in [("nod_y", "cls_x"), ("nod_x", "cls_y"), ("", "")] {
            assert!(!own.is_in(&removal(node, cluster)), "{node} of {cluster}");
        }
    }

    #[test]
    fn the_fence_lets_only_newer_configurations_through() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.accept(config(5, "a")), Ok(Accepted::New));
        assert_eq!(ledger.accept(config(5, "a")), Ok(Accepted::Same));
        assert_eq!(ledger.accept(config(5, "b")), Err(FenceError::Changed(5)));
        assert_eq!(ledger.accept(config(4, "a")), Err(FenceError::Older { offered: 4, accepted: 5 }));
        assert_eq!(ledger.accept(config(6, "b")), Ok(Accepted::New));
    }

    #[test]
    fn the_ledger_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.json");
        let mut ledger = Ledger::load(&path).unwrap();
        ledger.accept(config(3, "x")).unwrap();
        ledger.installed.files.insert("/etc/x".into());
        ledger.installed.sysctls.insert("/proc/sys/x".into(), "0".into());
        ledger.save(&path).unwrap();
        assert_eq!(Ledger::load(&path).unwrap(), ledger);
        std::fs::write(&path, "{\"config\": ").unwrap();
        assert!(Ledger::load(&path).is_err(), "a broken ledger is no empty ledger");
    }

    #[test]
    fn a_tombstone_names_its_node() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/removed.json");
        bury(&path, "nod_x").unwrap();
        let read: Tombstone = files::read_json(&path).unwrap().unwrap();
        assert_eq!(read.node_id, "nod_x");
    }
}
