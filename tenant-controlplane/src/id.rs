//! Typed identifiers: one newtype per kind of thing, so that a node's id never lands where a cluster's belongs.
//!
//! The text form is a TypeID (<https://github.com/jetify-com/typeid>): prefix, `_`, and the UUID in 26 characters of Crockford's base32,
//! lower case. The 26 characters are a DNS label, and a cluster's are its *label* in SNI names and in its host namespace. Ids are made
//! (UUIDv7) by whoever writes the row; this crate only names and reads them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SUFFIX_LEN: usize = 26;

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdError {
    /// The text has no `prefix_`, or another kind's.
    #[error("`{text}` is not an ID of this kind: it must start with `{expected}_`")]
    Prefix {
        /// What was given.
        text: String,
        /// The prefix of the wanted kind.
        expected: &'static str,
    },
    /// The part after the prefix is not 26 characters of base32 within 128 bits.
    #[error("`{text}` is not an ID: the prefix must be followed by 26 characters of 0-9 and a-z without i, l, o, u")]
    Suffix {
        /// What was given.
        text: String,
    },
}

/// 26 characters of Crockford base32, lower case; the first holds 3 bits.
fn encode(uuid: Uuid) -> String {
    let value = uuid.as_u128();
    (0..SUFFIX_LEN).rev().map(|place| char::from(ALPHABET[((value >> (place * 5)) & 31) as usize])).collect()
}

/// The inverse of [`encode`]; strict: lower case only, no look-alikes, no overflow, so that one id has one text.
fn decode(suffix: &str) -> Option<Uuid> {
    if suffix.len() != SUFFIX_LEN || suffix.as_bytes()[0] > b'7' {
        return None;
    }
    let digit = |byte: u8| ALPHABET.iter().position(|known| *known == byte);
    let value = suffix.bytes().try_fold(0_u128, |value, byte| Some((value << 5) | digit(byte)? as u128))?;
    Some(Uuid::from_u128(value))
}

fn parse(text: &str, prefix: &'static str) -> Result<Uuid, IdError> {
    let suffix = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_'));
    let suffix = suffix.ok_or_else(|| IdError::Prefix { text: text.to_owned(), expected: prefix })?;
    decode(suffix).ok_or_else(|| IdError::Suffix { text: text.to_owned() })
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// What the text form begins with, without the `_`.
            pub const PREFIX: &'static str = $prefix;

            /// Wraps a UUID made elsewhere.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID, as databases keep it.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// The 26 characters after the prefix: a DNS label.
            pub fn suffix(&self) -> String {
                encode(self.0)
            }

            /// Reads the 26 characters alone, as they stand in host names.
            ///
            /// # Errors
            /// [`IdError::Suffix`] for anything else.
            pub fn from_suffix(suffix: &str) -> Result<Self, IdError> {
                decode(suffix).map(Self).ok_or_else(|| IdError::Suffix { text: suffix.to_owned() })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text, $prefix).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    )+};
}

ids! {
    /// Who owns things: members, roles, quotas.
    OrganizationId = "org";
    /// A group of clusters inside an organization.
    ProjectId = "prj";
    /// A person.
    UserId = "usr";
    /// A token for the REST API.
    ApiTokenId = "tok";
    /// One tenant control plane; its suffix is the cluster's label.
    ClusterId = "cls";
    /// A named group of machines of one cluster.
    NodePoolId = "np";
    /// One machine; also the idempotency token at its provider.
    NodeId = "nod";
    /// What lets a machine join.
    JoinTokenId = "jtk";
    /// One issued kubeconfig.
    KubeconfigId = "kcf";
    /// Something that takes a while, in named steps.
    OperationId = "op";
    /// A Kubernetes cluster that runs tenants' control planes.
    HostId = "hst";
    /// One line of the audit log.
    AuditId = "aud";
    /// A browser that somebody signed in with.
    SessionId = "ses";
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn matches_the_typeid_specification() {
        let uuid: Uuid = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        assert_eq!(encode(uuid), "01h455vb4pex5vsknk084sn02q");
        assert_eq!(encode(Uuid::nil()), "00000000000000000000000000");
        assert_eq!(encode(Uuid::max()), "7zzzzzzzzzzzzzzzzzzzzzzzzz");
    }

    #[test]
    fn refuses_what_is_not_exactly_an_id() {
        let wrong = ["", "cls", "cls_", "nod_01h455vb4pex5vsknk084sn02q", "CLS_01h455vb4pex5vsknk084sn02q"];
        assert!(
            wrong
                .iter()
                .all(|text| matches!(text.parse::<ClusterId>(), Err(IdError::Prefix { .. } | IdError::Suffix { .. })))
        );
        for text in [
            "cls_81h455vb4pex5vsknk084sn02q",
            "cls_01H455VB4PEX5VSKNK084SN02Q",
            "cls_01h455vb4pex5vsknk084sn0il",
            "cls_ü1h455vb4pex5vsknk084sn02",
        ] {
            assert!(matches!(text.parse::<ClusterId>(), Err(IdError::Suffix { .. })), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_json_round_trip(value: u128) {
            let id = ClusterId::from_uuid(Uuid::from_u128(value));
            prop_assert_eq!(id.to_string().parse::<ClusterId>().unwrap(), id);
            prop_assert_eq!(ClusterId::from_suffix(&id.suffix()).unwrap(), id);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<ClusterId>(&json).unwrap(), id);
        }

        #[test]
        fn text_sorts_as_the_uuid_does(left: u128, right: u128) {
            let text = |value| ClusterId::from_uuid(Uuid::from_u128(value)).to_string();
            prop_assert_eq!(left.cmp(&right), text(left).cmp(&text(right)));
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = text.parse::<NodeId>();
            let _ = ClusterId::from_suffix(&text);
        }
    }
}
