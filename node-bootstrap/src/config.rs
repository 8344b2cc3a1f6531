//! Where things lie on a joined machine, and what `join.json` says.
//!
//! Every path hangs below one prefix (`--root`, `/` in real life), so that tests and inspections of an offline disk see the same tree.

use std::path::{Path, PathBuf};

use node_linux::files::{self, FileError};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// The paths of a joined machine.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Paths below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// An absolute path of the machine, below the prefix.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// State that outlives a reboot: ledger, keys, parts, containerd's and kubelet's directories.
    pub fn state(&self) -> PathBuf {
        self.at("/var/lib/pilothouse-node")
    }

    /// Sockets, pid files and status: gone after a reboot.
    pub fn run(&self) -> PathBuf {
        self.at("/run/pilothouse-node")
    }

    /// The programs, as links into the parts.
    pub fn bin(&self) -> PathBuf {
        self.at("/opt/pilothouse/bin")
    }

    /// The agent's and its children's logs.
    pub fn logs(&self) -> PathBuf {
        self.at("/var/log/pilothouse-node")
    }

    /// Parts that somebody put on the machine beforehand, named by SHA-256; read only.
    pub fn seed(&self) -> PathBuf {
        self.at("/var/cache/pilothouse/seed")
    }

    /// What a provider or cloud-init leaves for the first start; holds the token.
    pub fn join_file(&self) -> PathBuf {
        self.at("/etc/pilothouse/join.json")
    }

    /// The ledger.
    pub fn ledger(&self) -> PathBuf {
        self.state().join("ledger.json")
    }

    /// Marks a machine whose node was removed by the platform: it never comes back by itself.
    pub fn tombstone(&self) -> PathBuf {
        self.state().join("removed.json")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.state().join("pki")
    }

    /// The systemd unit.
    pub fn unit(&self) -> PathBuf {
        self.at("/etc/systemd/system/pilothouse-node.service")
    }
}

/// How to reach and trust the platform, and the right to enroll once.
#[derive(Clone, Deserialize)]
pub struct JoinConfig {
    /// The gateway, `address:port`.
    pub server: String,
    /// The instance's DNS domain, as used in SNI names.
    pub domain: String,
    /// The certificate authority that signs the gateway's certificate, PEM.
    pub ca_pem: String,
    /// The join token. A secret.
    #[serde(deserialize_with = "secret")]
    pub token: Zeroizing<String>,
    /// The requested node name; empty: the hostname.
    #[serde(default)]
    pub node_name: String,
    /// The platform's signing key: only parts that it signed are used. Empty in a line of before there were signatures.
    #[serde(default)]
    pub signing_key: String,
}

fn secret<'de, D: Deserializer<'de>>(text: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(text).map(Zeroizing::new)
}

impl std::fmt::Debug for JoinConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("JoinConfig")
            .field("server", &self.server)
            .field("domain", &self.domain)
            .field("token", &"…")
            .finish_non_exhaustive()
    }
}

impl JoinConfig {
    /// Reads `join.json`; `None` when there is none.
    pub fn load(path: &Path) -> Result<Option<Self>, FileError> {
        files::read_json(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_hangs_below_the_prefix() {
        let paths = Paths::new("/tmp/x");
        for path in [paths.state(), paths.run(), paths.bin(), paths.seed(), paths.join_file(), paths.unit()] {
            assert!(path.starts_with("/tmp/x"), "{}", path.display());
        }
    }

    #[test]
    fn a_token_never_shows_in_debug() {
        let join = JoinConfig {
            server: "192.0.2.1:443".into(),
            domain: "pilothouse.internal".into(),
            ca_pem: String::new(),
            token: Zeroizing::new("pilothouse_join_secret".into()),
            node_name: String::new(),
            signing_key: String::new(),
        };
        assert!(!format!("{join:?}").contains("secret"));
    }
}
