//! Which Kubernetes versions a control plane can have: a closed list, because each needs a bundle and golden manifests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Newest first: the first one is the default.
const KNOWN: &[KubernetesVersion] =
    &[KubernetesVersion { major: 1, minor: 36, patch: 3 }, KubernetesVersion { major: 1, minor: 35, patch: 4 }];

/// A Kubernetes version this program knows, such as `1.36.3`. Ordered as versions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KubernetesVersion {
    major: u16,
    minor: u16,
    patch: u16,
}

/// The text names no version this program knows.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown Kubernetes version `{given}`: choose one of {}", known_list())]
pub struct VersionError {
    /// What was asked for.
    pub given: String,
}

fn known_list() -> String {
    KNOWN.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl KubernetesVersion {
    /// Reads `1.36.3` (a leading `v` is allowed).
    ///
    /// # Errors
    /// [`VersionError`], which lists the known ones.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let wanted = text.strip_prefix('v').unwrap_or(text);
        let found = KNOWN.iter().find(|known| known.to_string() == wanted);
        found.copied().ok_or_else(|| VersionError { given: text.to_owned() })
    }

    /// All known versions, newest first.
    pub fn known() -> &'static [Self] {
        KNOWN
    }

    /// The minor version: 36 of 1.36.3.
    pub const fn minor(self) -> u16 {
        self.minor
    }
}

impl Default for KubernetesVersion {
    fn default() -> Self {
        KNOWN[0]
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for KubernetesVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for KubernetesVersion {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        Self::parse(&text)
    }
}

impl From<KubernetesVersion> for String {
    fn from(version: KubernetesVersion) -> Self {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_versions() {
        assert_eq!(KubernetesVersion::default().to_string(), "1.36.3");
        assert_eq!(KubernetesVersion::parse("v1.35.4").unwrap().minor(), 35);
        assert!(KubernetesVersion::known().is_sorted_by(|newer, older| newer > older));
    }

    #[test]
    fn names_the_known_ones_when_asked_for_another() {
        for text in ["", "1.36", "1.36.03", "1.2.3", "latest", "1.36.3 "] {
            let error = KubernetesVersion::parse(text).unwrap_err().to_string();
            assert!(error.contains("1.36.3, 1.35.4"), "{error}");
        }
    }
}
