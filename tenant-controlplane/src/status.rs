//! The words for how something is: states for people, conditions in Kubernetes' shape, and problems with the next step.

mod problem;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;

pub use problem::{Problem, ProblemCode, ProblemEntry, StoredCode};

/// The text is not a word of that list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{given}` is not a known {kind}")]
pub struct UnknownWord {
    /// What kind of word was expected.
    pub kind: &'static str,
    /// What was given.
    pub given: String,
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident ($kind:literal) { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every word of this list.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word as databases and APIs write it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                let found = Self::ALL.iter().find(|word| word.as_str() == text);
                found.copied().ok_or_else(|| UnknownWord { kind: $kind, given: text.to_owned() })
            }
        }
    )+};
}

words! {
    /// How a cluster is.
    ClusterState ("cluster state") {
        /// Asked for; nobody has begun.
        Pending = "pending",
        /// Being made.
        Provisioning = "provisioning",
        /// Its API answers from outside.
        Running = "running",
        /// It was running, and now something is wrong with it.
        Degraded = "degraded",
        /// Being taken away.
        Deleting = "deleting",
        /// It cannot be made without somebody acting.
        Error = "error",
    }
    /// How a node is.
    NodeState ("node state") {
        /// Asked for; nobody has begun.
        Pending = "pending",
        /// Its machine is being made.
        Creating = "creating",
        /// The machine exists and is on its way into the cluster.
        Joining = "joining",
        /// Kubernetes says it is ready.
        Ready = "ready",
        /// It is in the cluster but not ready.
        NotReady = "not_ready",
        /// Being taken away.
        Deleting = "deleting",
        /// Its machine is gone, and nobody asked for that.
        Lost = "lost",
    }
    /// How a node pool is.
    PoolState ("node pool state") {
        /// Asked for; nobody has begun.
        Pending = "pending",
        /// Machines are being made, joined or removed.
        Scaling = "scaling",
        /// As many ready nodes as asked for (a pool of the user's own machines: all that joined are ready).
        Ready = "ready",
        /// Some node is not ready.
        Degraded = "degraded",
        /// Being taken away.
        Deleting = "deleting",
        /// It cannot be made without somebody acting.
        Error = "error",
    }
    /// Whose doing a problem is, so that the right one is told.
    Class ("problem class") {
        /// The user can mend it.
        User = "user",
        /// The operators of this installation must.
        Platform = "platform",
        /// The cloud or machine provider is at fault.
        Provider = "provider",
        /// A limit was reached.
        Quota = "quota",
    }
    /// Whether a condition holds; `Unknown` until it was first observed, and whenever it could not be.
    ConditionStatus ("condition status") {
        /// It holds.
        True = "True",
        /// It does not hold.
        False = "False",
        /// Nobody could tell.
        Unknown = "Unknown",
    }
    /// What a file kubeconfig's holder may do in the cluster.
    AccessRole ("access role") {
        /// Read most things in all namespaces, no secrets.
        View = "view",
        /// Read and write workloads, configuration and secrets in all namespaces but Kubernetes' own (`kube-*`); no roles, no tokens of
        /// service accounts, no acting as somebody else. Whoever runs pods in a namespace can use its service accounts.
        Edit = "edit",
        /// Everything.
        Admin = "admin",
    }
    /// How a kubeconfig addresses its cluster's API server, for clients differ in what they can do.
    KubeconfigEndpoint ("kubeconfig endpoint") {
        /// By the gateway's address; `tls-server-name` says which cluster. Needs no DNS.
        Sni = "sni",
        /// By the cluster's own name, which must resolve to the gateway. For clients that know no `tls-server-name`.
        Dns = "dns",
        /// By a port of its own on the gateway, where the operator allows some. For clients that know no names at all.
        Port = "port",
    }
}

impl From<Option<bool>> for ConditionStatus {
    /// `None` is "could not tell", never "no".
    fn from(observed: Option<bool>) -> Self {
        match observed {
            Some(true) => Self::True,
            Some(false) => Self::False,
            None => Self::Unknown,
        }
    }
}

/// One observed fact, in the shape of Kubernetes' `metav1.Condition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which fact, CamelCase: `Ready`, `DatastoreReady`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, as one CamelCase word for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// The generation this was observed for.
    pub observed_generation: i64,
    /// When `status` last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub last_transition_time: OffsetDateTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_as_text_and_json() {
        for state in NodeState::ALL {
            assert_eq!(state.as_str().parse::<NodeState>().unwrap(), *state);
            assert_eq!(serde_json::to_string(state).unwrap(), format!("\"{state}\""));
        }
        assert_eq!("gone".parse::<ClusterState>().unwrap_err().to_string(), "`gone` is not a known cluster state");
    }

    #[test]
    fn unknown_is_not_false() {
        assert_eq!(ConditionStatus::from(None), ConditionStatus::Unknown);
    }
}
