//! `bundle.json`: the list of what a bundle holds. Read back strictly, for a manifest may come from another machine.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The layout this code writes and reads.
const FORMAT: u32 = 1;

/// What an artefact is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A program for hosts and nodes.
    Binary,
    /// An OCI image archive to import.
    Image,
    /// Our own node agent.
    Agent,
}

impl Kind {
    /// `binary`, `image` or `agent`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Kind::Binary => "binary",
            Kind::Image => "image",
            Kind::Agent => "agent",
        }
    }
}

/// One part of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artefact {
    /// `kubelet`; unique within binaries and agents, and within images.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// The component's own version, `3.6.16`.
    pub version: String,
    /// SHA-256 of the bytes, lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Where it came from: `go:<package>@v<version>`, a URL, `file:<path>` or `bundle` (packed here).
    pub source: String,
    /// Path within the cache, `sha256/<hex>`.
    pub file: String,
    /// For images, the reference under which it is imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// What one bundle holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this layout.
    pub format: u32,
    /// Kubernetes version, without `v`.
    pub kubernetes: String,
    /// Architecture as Go and OCI spell it: `amd64`, `arm64`.
    pub arch: String,
    /// The parts, sorted by name and kind.
    pub artefacts: Vec<Artefact>,
}

impl Manifest {
    /// Parts in a fixed order, so that equal contents make equal manifests.
    pub(crate) fn new(kubernetes: &str, mut artefacts: Vec<Artefact>) -> Manifest {
        artefacts.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
        Manifest { format: FORMAT, kubernetes: kubernetes.to_owned(), arch: arch().to_owned(), artefacts }
    }

    /// The text of `bundle.json`; two-space JSON with a line break at the end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads `bundle.json`; every path in it is proven to lie in the store.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Manifest, String> {
        let manifest: Manifest = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if manifest.format != FORMAT {
            return Err(format!("format {} is not {FORMAT}; use the pilothouse that wrote it", manifest.format));
        }
        // It becomes part of a path.
        if !is_word(&manifest.kubernetes) || !is_word(&manifest.arch) {
            return Err(format!("{:?} is no Kubernetes version", manifest.kubernetes));
        }
        let mut seen = BTreeSet::new();
        for artefact in &manifest.artefacts {
            artefact.check()?;
            if !seen.insert((artefact.name.as_str(), artefact.kind == Kind::Image)) {
                return Err(format!("`{}` is listed twice", artefact.name));
            }
        }
        Ok(manifest)
    }

    /// Bytes of all parts, each counted once even if two parts share their bytes.
    pub fn size(&self) -> u64 {
        self.blobs().fold(0, |sum, artefact| sum.saturating_add(artefact.size))
    }

    /// The parts with distinct bytes.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Artefact> {
        let mut seen = BTreeSet::new();
        self.artefacts.iter().filter(move |artefact| seen.insert(artefact.sha256.as_str()))
    }
}

impl Artefact {
    fn check(&self) -> Result<(), String> {
        if !is_word(&self.name) || !is_word(&self.version) {
            return Err(format!("{:?} is no name and version of a part", self.name));
        }
        if !is_digest(&self.sha256) || self.file != format!("sha256/{}", self.sha256) {
            return Err(format!("`{}` does not lie in the store", self.name));
        }
        if (self.kind == Kind::Image) != self.image.is_some() {
            return Err(format!("`{}`: an image needs a reference, anything else must have none", self.name));
        }
        Ok(())
    }
}

/// Letters, digits and `.-_+`, not beginning with a dot: good for a file name and a terminal.
fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
    !text.is_empty() && text.len() <= 128 && !text.starts_with('.') && text.bytes().all(plain)
}

/// 64 lower-case hex digits.
pub(crate) fn is_digest(text: &str) -> bool {
    is_hex(text, 64)
}

/// So many lower-case hex digits.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// This machine's architecture as Go and OCI spell it.
pub(crate) fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artefact(name: &str, kind: Kind) -> Artefact {
        let sha256 = "a".repeat(64);
        Artefact {
            name: name.into(),
            kind,
            version: "1.0".into(),
            file: format!("sha256/{sha256}"),
            sha256,
            size: 3,
            source: "bundle".into(),
            image: (kind == Kind::Image).then(|| format!("pilothouse.local/{name}:1.0")),
        }
    }

    #[test]
    fn round_trip_is_sorted_and_equal() {
        let manifest = Manifest::new(
            "1.36.3",
            vec![artefact("etcd", Kind::Image), artefact("etcd", Kind::Binary), artefact("a", Kind::Agent)],
        );
        assert_eq!(
            manifest.artefacts.iter().map(|a| a.kind).collect::<Vec<_>>(),
            [Kind::Agent, Kind::Binary, Kind::Image]
        );
        assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
        assert_eq!(manifest.size(), 3);
    }

    #[test]
    fn manifests_that_point_elsewhere_are_refused() {
        let mut evil = Manifest::new("1.36.3", vec![artefact("etcd", Kind::Binary)]);
        evil.artefacts[0].file = "../../etc/shadow".into();
        assert_eq!(Manifest::parse(&evil.to_json()).unwrap_err(), "`etcd` does not lie in the store");
        let mut evil = Manifest::new("../../escape", vec![artefact("etcd", Kind::Binary)]);
        assert_eq!(Manifest::parse(&evil.to_json()).unwrap_err(), "\"../../escape\" is no Kubernetes version");
        evil = Manifest::new("1.36.3", vec![artefact("\u{1b}[2J", Kind::Binary)]);
        assert!(Manifest::parse(&evil.to_json()).unwrap_err().ends_with("is no name and version of a part"));
        let twice = Manifest::new("1.36.3", vec![artefact("etcd", Kind::Binary), artefact("etcd", Kind::Agent)]);
        assert_eq!(Manifest::parse(&twice.to_json()).unwrap_err(), "`etcd` is listed twice");
    }
}
