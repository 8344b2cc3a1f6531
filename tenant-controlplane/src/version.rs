//! Kubernetes versions: any can be stored, and those of a closed list can be asked for, because each needs a bundle and golden manifests.
//!
//! A release of this program may drop a version. Rows that carry it stay readable; only a new cluster of it is refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Newest first: the first one is the default.
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
    /// This program has no components of it.
    #[error("unknown Kubernetes version `{given}`: choose one of {}", known_list())]
    Unknown {
        /// What was asked for.
        given: String,
    },
}

fn known_list() -> String {
    KNOWN.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl KubernetesVersion {
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

    /// Reads a version that is asked for: it must be a known one.
    ///
    /// # Errors
    /// [`VersionError::Unknown`], which lists the known ones.
    pub fn parse_known(text: &str) -> Result<Self, VersionError> {
        let known = Self::parse(text).ok().filter(|version| version.is_known());
        known.ok_or_else(|| VersionError::Unknown { given: text.to_owned() })
    }

    /// Whether this program has the components and manifests of it.
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
    fn names_the_known_ones_when_asked_for_another() {
        for text in ["", "1.36", "1.36.03", "1.2.3", "latest", "1.36.3 "] {
            let error = KubernetesVersion::parse_known(text).unwrap_err().to_string();
            assert!(error.contains("1.36.3, 1.35.4"), "{error}");
        }
        assert_eq!(KubernetesVersion::parse_known("v1.36.3").unwrap(), KubernetesVersion::default());
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
