//! Quotas: how many of each resource a tenant has, and may have.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantArray};
use tenant_controlplane::id::{OrganizationId, UserId};
use thiserror::Error;
use uuid::Uuid;

/// The text names no resource with a quota.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{given}` is not a known resource with a quota")]
pub struct UnknownResource {
    /// What was given.
    pub given: String,
}

impl UnknownResource {
    fn new(given: &str) -> Self {
        Self { given: given.to_owned() }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, Display, VariantArray)]
#[strum(serialize_all = "snake_case", parse_err_ty = UnknownResource, parse_err_fn = UnknownResource::new)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Clusters of an organization, those that are being deleted among them.
    Clusters,
    /// Nodes of an organization: those there are, and those its pools ask for.
    Nodes,
    /// Node pools of an organization.
    NodePools,
    /// Join tokens of an organization that a machine could still use.
    JoinTokens,
    /// Kubeconfigs of an organization that are neither revoked nor past their time.
    Kubeconfigs,
    /// API tokens that reach an organization and are not past their time.
    ApiTokens,
    /// Projects of an organization.
    Projects,
    /// Organizations a person owns.
    Organizations,
}

impl Resource {
    /// Every resource, in the order in which they are shown.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// How many there may be where nobody set another limit. Each cluster may take gigabytes of the host, each node is looked at every
    /// half minute, and each kubeconfig is bytes in its tenant's control plane.
    pub const fn default_limit(self) -> u64 {
        match self {
            Self::Clusters | Self::Projects => 20,
            Self::NodePools | Self::JoinTokens => 50,
            Self::Nodes | Self::Kubeconfigs | Self::ApiTokens => 100,
            Self::Organizations => 10,
        }
    }

    /// Whether a person holds this quota, and not an organization.
    pub const fn is_personal(self) -> bool {
        matches!(self, Self::Organizations)
    }

    /// For people, in the plural: `node pools`.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Clusters => "clusters",
            Self::Nodes => "nodes",
            Self::NodePools => "node pools",
            Self::JoinTokens => "join tokens",
            Self::Kubeconfigs => "kubeconfigs",
            Self::ApiTokens => "API tokens",
            Self::Projects => "projects",
            Self::Organizations => "organizations",
        }
    }
}

/// Whose quota it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaHolder {
    /// An organization's.
    Organization(OrganizationId),
    /// A person's.
    Person(UserId),
}

impl QuotaHolder {
    pub(crate) const fn uuid(self) -> Uuid {
        match self {
            Self::Organization(id) => id.uuid(),
            Self::Person(id) => id.uuid(),
        }
    }
}

/// How much of a quota is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// What is counted.
    pub resource: Resource,
    /// How many there are; more than the limit where it was lowered.
    pub used: u64,
    /// How many there may be.
    pub limit: u64,
}

impl QuotaUse {
    /// Why `wanted` more are refused, in a clause without a full stop.
    pub(crate) fn refusal(&self, wanted: u64) -> String {
        let (used, limit, title) = (self.used, self.limit, self.resource.title());
        let holder = if self.resource.is_personal() { "you own" } else { "this organization has" };
        let more = if wanted > 1 { format!(", and {wanted} more were requested") } else { String::new() };
        format!("quota exceeded: {holder} {used} of {limit} {title}{more}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_resource_is_named() {
        assert_eq!("node_pools".parse(), Ok(Resource::NodePools));
        let refused = "pods".parse::<Resource>().unwrap_err();
        assert_eq!(refused.to_string(), "`pods` is not a known resource with a quota");
    }

    #[test]
    fn a_refusal_says_what_how_many_and_of_how_many() {
        let quota = QuotaUse { resource: Resource::NodePools, used: 50, limit: 50 };
        assert_eq!(quota.refusal(1), "quota exceeded: this organization has 50 of 50 node pools");
        let quota = QuotaUse { resource: Resource::Nodes, used: 90, limit: 100 };
        assert_eq!(
            quota.refusal(20),
            "quota exceeded: this organization has 90 of 100 nodes, and 20 more were requested"
        );
        let quota = QuotaUse { resource: Resource::Organizations, used: 10, limit: 10 };
        assert_eq!(quota.refusal(1), "quota exceeded: you own 10 of 10 organizations");
    }
}
