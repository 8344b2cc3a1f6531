//! Names people choose: DNS labels (RFC 1123), unique under their parent and never changed.
//!
//! Names of clusters, pools, organizations and projects hold at most 40 characters, so that what is derived from them (machine names,
//! kubeconfig contexts) still fits the 63 of a DNS label. Node names are Kubernetes' own and may use all 63.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

const RESOURCE_MAX: usize = 40;
const NODE_MAX: usize = 63;

/// Why a text is not a name. The messages are for people.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name is required: lowercase letters, digits and `-`, for example `demo`")]
    Empty,
    /// More characters than the kind of name may have.
    #[error("the name has {length} characters; the maximum is {max}")]
    TooLong {
        /// Characters given.
        length: usize,
        /// Characters allowed.
        max: usize,
    },
    /// A character outside a-z, 0-9 and `-`.
    #[error("the name contains `{found}`: use only lowercase letters a-z, digits and `-`")]
    Character {
        /// The first such character.
        found: char,
    },
    /// `-` at the beginning or the end.
    #[error("the name must start and end with a letter or digit")]
    Edge,
}

/// The rules of a DNS label with a limit of `max` characters.
fn check(text: &str, max: usize) -> Result<(), NameError> {
    let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    let length = text.chars().count();
    match text.chars().find(|c| !allowed(c)) {
        _ if text.is_empty() => Err(NameError::Empty),
        _ if length > max => Err(NameError::TooLong { length, max }),
        Some(found) => Err(NameError::Character { found: found.escape_debug().next().unwrap_or(found) }),
        None if text.starts_with('-') || text.ends_with('-') => Err(NameError::Edge),
        None => Ok(()),
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident max $max:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// The greatest number of characters.
            pub const MAX: usize = $max;

            /// Reads a name.
            ///
            /// # Errors
            /// [`NameError`] with a message for the person who typed it.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text, $max).map(|()| Self(text.to_owned()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    )+};
}

names! {
    /// A name of anything of ours, where its kind does not matter.
    ResourceName max RESOURCE_MAX;
    /// A cluster's name, unique in its project.
    ClusterName max RESOURCE_MAX;
    /// A node pool's name, unique in its cluster.
    PoolName max RESOURCE_MAX;
    /// An organization's name, unique in the installation.
    OrganizationName max RESOURCE_MAX;
    /// A project's name, unique in its organization.
    ProjectName max RESOURCE_MAX;
    /// A Kubernetes node's name, unique in its cluster.
    NodeName max NODE_MAX;
}

impl NodeName {
    /// Makes a node name out of a machine's host name as well as it goes: lower case, what is not allowed becomes `-`, cut at 63.
    ///
    /// # Errors
    /// [`NameError::Empty`] when nothing usable is left.
    pub fn from_hostname(hostname: &str) -> Result<Self, NameError> {
        let plain = hostname.trim().to_lowercase();
        let mapped: String =
            plain.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(NODE_MAX).collect();
        Self::parse(mapped.trim_matches('-'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_names() {
        let good = ["a", "demo", "team-1", "0x", "a--b", &"a".repeat(40)];
        assert!(good.iter().all(|text| ResourceName::parse(text).is_ok()));
        let bad = [
            ("", NameError::Empty),
            (&"a".repeat(41), NameError::TooLong { length: 41, max: 40 }),
            ("Demo", NameError::Character { found: 'D' }),
            ("my cluster", NameError::Character { found: ' ' }),
            ("a_b", NameError::Character { found: '_' }),
            ("a.b", NameError::Character { found: '.' }),
            ("größe", NameError::Character { found: 'ö' }),
            ("-a", NameError::Edge),
            ("a-", NameError::Edge),
            ("-", NameError::Edge),
        ];
        for (text, error) in bad {
            assert_eq!(ClusterName::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn json_is_checked_too() {
        assert!(serde_json::from_str::<PoolName>("\"web\"").is_ok());
        let error = serde_json::from_str::<PoolName>("\"Web\"").unwrap_err().to_string();
        assert!(error.contains("only lowercase letters"), "{error}");
    }

    #[test]
    fn host_names_become_node_names() {
        assert_eq!(NodeName::from_hostname("Web_01.example.com\n").unwrap().as_str(), "web-01-example-com");
        assert_eq!(NodeName::from_hostname(&"x".repeat(80)).unwrap().as_str().len(), 63);
        assert_eq!(NodeName::from_hostname("…"), Err(NameError::Empty));
    }
}
