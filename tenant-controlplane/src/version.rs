//! Kubernetes versions: any can be read and stored. Which ones an installation offers, its bundles say.
//!
//! A release of this program may drop a version. Rows that carry it stay readable; only a new cluster of it is refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Those with golden manifests, newest first: the first one is the default. Each has pins in the crate `bundle`.
const KNOWN: &[KubernetesVersion] =
    &[KubernetesVersion { major: 1, minor: 36, patch: 3 }, KubernetesVersion { major: 1, minor: 35, patch: 4 }];

/// A Kubernetes version, such as `1.36.3`, whether or not this program offers it. Ordered as versions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KubernetesVersion {
    major: u16,
    minor: u16,
    patch: u16,
}

/// Why a text is no Kubernetes version that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VersionError {
    /// It is not written as three numbers with dots between them (<https://semver.org>, section 2).
    #[error("`{given}` is not a Kubernetes version: use the form {}", KubernetesVersion::default())]
    Malformed {
        /// What was given.
        given: String,
    },
}

/// How many minor versions a kubelet may be behind the API server
/// (<https://kubernetes.io/releases/version-skew-policy/#kubelet>).
pub const KUBELET_SKEW: u16 = 3;

/// Why a kubelet of one version may not join an API server of another.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SkewError {
    /// A kubelet is never newer than its API server.
    #[error("nodes of Kubernetes {kubelet} are newer than their control plane, {server}: choose {server} or older")]
    Newer {
        /// The node's version.
        kubelet: KubernetesVersion,
        /// The control plane's.
        server: KubernetesVersion,
    },
    /// It is at most [`KUBELET_SKEW`] minor versions older.
    #[error(
        "nodes of Kubernetes {kubelet} are more than {KUBELET_SKEW} minor versions older than their control plane, {server}"
    )]
    TooOld {
        /// The node's version.
        kubelet: KubernetesVersion,
        /// The control plane's.
        server: KubernetesVersion,
    },
}

impl KubernetesVersion {
    /// Whether a kubelet of this version may join an API server of `server`. Patch versions of one minor version go together.
    ///
    /// # Errors
    /// [`SkewError`].
    pub fn may_join(self, server: Self) -> Result<(), SkewError> {
        let (own, other) = ((self.major, self.minor), (server.major, server.minor));
        if own > other {
            return Err(SkewError::Newer { kubelet: self, server });
        }
        if self.major != server.major || server.minor - self.minor > KUBELET_SKEW {
            return Err(SkewError::TooOld { kubelet: self, server });
        }
        Ok(())
    }

    /// Reads any version, `1.36.3` (a leading `v` is allowed): what is stored may be older than this program's list.
    ///
    /// # Errors
    /// [`VersionError::Malformed`] for anything else.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let plain = text.strip_prefix('v').unwrap_or(text);
        let numbers: Vec<u16> = plain.split('.').filter_map(|number| number.parse().ok()).collect();
        let read = match numbers[..] {
            [major, minor, patch] => Some(Self { major, minor, patch }),
            _ => None,
        };
        // One spelling only: no sign, no leading zero, nothing that was skipped.
        let exact = read.filter(|version| version.to_string() == plain);
        exact.ok_or_else(|| VersionError::Malformed { given: text.to_owned() })
    }

    /// Whether this program has the pins and manifests of it.
    pub fn is_known(self) -> bool {
        KNOWN.contains(&self)
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
    fn a_kubelet_is_never_newer_and_at_most_three_minor_versions_older() {
        let version = |text: &str| KubernetesVersion::parse(text).unwrap();
        let server = version("1.36.3");
        for kubelet in ["1.36.3", "1.36.0", "1.36.9", "1.35.4", "1.33.0"] {
            assert_eq!(version(kubelet).may_join(server), Ok(()), "{kubelet}");
        }
        for (kubelet, words) in
            [("1.37.0", "newer than"), ("2.0.0", "newer than"), ("1.32.9", "more than 3"), ("0.36.0", "more than 3")]
        {
            let error = version(kubelet).may_join(server).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(kubelet) && error.contains("1.36.3"), "{error}");
        }
    }

    #[test]
    fn a_dropped_version_is_read_and_written_as_it_was() {
        let dropped: KubernetesVersion = serde_json::from_str("\"1.29.14\"").unwrap();
        assert!(!dropped.is_known() && dropped < KubernetesVersion::default());
        assert_eq!(serde_json::to_string(&dropped).unwrap(), "\"1.29.14\"");
        for text in
            ["", "1", "1.36", "1.36.03", "1.+3.6", "1.2.3.4", "1.2.3-rc.1", "1.2.70000", "1..2.3", "latest", "1.36.3 "]
        {
            assert!(KubernetesVersion::parse(text).is_err(), "{text}");
        }
    }
}
