//! The words for how something is: states for people, conditions in Kubernetes' shape, and problems with the next step.

mod problem;

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantArray};
use time::OffsetDateTime;

pub use problem::{Problem, ProblemCode, ProblemEntry, StoredCode};

/// How a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, Display, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum ClusterState {
    /// Asked for; nobody has begun.
    Pending,
    /// Being made.
    Provisioning,
    /// Its API answers from outside.
    Running,
    /// It was running, and now something is wrong with it.
    Degraded,
    /// Being taken away.
    Deleting,
    /// It cannot be made without somebody acting.
    Error,
}

impl ClusterState {
    /// Every state.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, Display, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Asked for; nobody has begun.
    Pending,
    /// Its machine is being made.
    Creating,
    /// The machine exists and is on its way into the cluster.
    Joining,
    /// Kubernetes says it is ready.
    Ready,
    /// It is in the cluster but not ready.
    NotReady,
    /// Being taken away.
    Deleting,
    /// Its machine is gone, and nobody asked for that.
    Lost,
}

impl NodeState {
    /// Every state.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;
}

/// How a node pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, Display, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum PoolState {
    /// Asked for; nobody has begun.
    Pending,
    /// Machines are being made, joined or removed.
    Scaling,
    /// As many ready nodes as asked for (a pool of the user's own machines: all that joined are ready).
    Ready,
    /// Some node is not ready.
    Degraded,
    /// Being taken away.
    Deleting,
    /// It cannot be made without somebody acting.
    Error,
}

impl PoolState {
    /// Every state.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;
}

/// Whose doing a problem is, so that the right one is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, Display)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The user can mend it.
    User,
    /// The operators of this installation must.
    Platform,
    /// The cloud or machine provider is at fault.
    Provider,
    /// A limit was reached.
    Quota,
}

/// Whether a condition holds; `Unknown` until it was first observed, and whenever it could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, Display, VariantArray)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody could tell.
    Unknown,
}

/// What a file kubeconfig's holder may do in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, Display, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum AccessRole {
    /// Read most things in all namespaces, no secrets.
    View,
    /// Read and write workloads, configuration and secrets in all namespaces but Kubernetes' own (`kube-*`); no roles, no tokens of
    /// service accounts, no acting as somebody else. Whoever runs pods in a namespace can use its service accounts.
    Edit,
    /// Everything.
    Admin,
}

impl AccessRole {
    /// Every role.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;
}

/// How a kubeconfig addresses its cluster's API server, for clients differ in what they can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, Display)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum KubeconfigEndpoint {
    /// By the gateway's address; `tls-server-name` says which cluster. Needs no DNS.
    Sni,
    /// By the cluster's own name, which must resolve to the gateway. For clients that know no `tls-server-name`.
    Dns,
    /// By a port of its own on the gateway, where the operator allows some. For clients that know no names at all.
    Port,
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
            assert_eq!(state.to_string().parse::<NodeState>().unwrap(), *state);
            assert_eq!(serde_json::to_string(state).unwrap(), format!("\"{state}\""));
        }
        assert_eq!(NodeState::NotReady.to_string(), "not_ready");
        assert_eq!(ConditionStatus::True.to_string(), "True", "as Kubernetes writes it");
        assert!("gone".parse::<ClusterState>().is_err() && "Running".parse::<ClusterState>().is_err());
    }

    #[test]
    fn unknown_is_not_false() {
        assert_eq!(ConditionStatus::from(None), ConditionStatus::Unknown);
    }
}
