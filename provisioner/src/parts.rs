//! The pieces a machine needs to become a node, as the platform holds them: by checksum, with no other source.

use std::fs::File;
use std::path::PathBuf;

use node_protocol::{PartKind, Signed};
use tenant_controlplane::version::KubernetesVersion;

/// One piece: a binary or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `kubelet`, `containerd`, `pause`, …
    pub name: String,
    /// A program or an image.
    pub kind: PartKind,
    /// Its version.
    pub version: String,
    /// SHA-256 of its content, lower-case hex.
    pub sha256: String,
    /// Its length in bytes.
    pub size: u64,
    /// The reference under which an image is imported; empty for binaries.
    pub image: String,
}

/// Where the pieces are.
pub trait Parts: Send + Sync {
    /// What a node of that version needs; empty for a version that is not there.
    fn list(&self, version: KubernetesVersion) -> Vec<Part>;

    /// Who says that those are the pieces: the list they are taken from, as it was signed.
    fn signed(&self, version: KubernetesVersion) -> Option<Signed>;

    /// Opens one piece by its checksum.
    ///
    /// # Errors
    /// The file system's error; `NotFound` for a checksum that is not there.
    fn open(&self, sha256: &str) -> std::io::Result<File>;

    /// A directory on a disk that has a gigabyte to spare, for what is kept of packed parts while the platform runs: a file without a
    /// name.
    fn keep_dir(&self) -> PathBuf;
}
