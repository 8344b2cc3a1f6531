//! The Kubernetes versions there are pins for. A version that is not listed cannot be named further in.

use std::fmt;
use std::str::FromStr;

use crate::BundleError;

/// Newest first; the first is the default. Each has a lock in `data/locks`.
const KNOWN: [&str; 2] = ["1.36.3", "1.35.4"];

/// A Kubernetes version with pins, without the leading `v`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version(&'static str);

impl Version {
    /// Parses `1.36.3` or `v1.36.3`.
    ///
    /// # Errors
    /// [`BundleError::UnknownVersion`], listing the known ones.
    pub fn parse(text: &str) -> crate::Result<Version> {
        let bare = text.trim().trim_start_matches('v');
        KNOWN
            .iter()
            .find(|known| **known == bare)
            .map(|known| Version(known))
            .ok_or_else(|| BundleError::UnknownVersion { asked: text.to_owned(), known: KNOWN.join(", ") })
    }

    /// Every version there are pins for, newest first.
    pub fn known() -> Vec<Version> {
        KNOWN.iter().map(|text| Version(text)).collect()
    }

    /// `1.36.3`.
    pub fn as_str(&self) -> &'static str {
        self.0
    }

    /// Major and minor as text, `("1", "36")`.
    pub(crate) fn minor(&self) -> (&'static str, &'static str) {
        let mut parts = self.0.split('.');
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }
}

impl Default for Version {
    fn default() -> Self {
        Version(KNOWN[0])
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl FromStr for Version {
    type Err = BundleError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Version::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_versions_name_the_known_ones() {
        let error = Version::parse("1.30.0").unwrap_err().to_string();
        assert_eq!(error, "unknown Kubernetes version `1.30.0`; known versions: 1.36.3, 1.35.4");
    }

    #[test]
    fn known_versions_round_trip() {
        for version in Version::known() {
            assert_eq!(version.to_string().parse::<Version>().unwrap(), version);
        }
        assert_eq!(Version::parse("v1.35.4").unwrap().minor(), ("1", "35"));
        assert_eq!(Version::default().as_str(), "1.36.3");
    }
}
