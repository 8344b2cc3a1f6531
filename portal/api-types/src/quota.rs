//! Quotas: how many of each resource an organization has, and may have.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The quotas of an organization. Its operators set the limits (`pilothouse admin quota set`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quota {
    /// Always `quota`.
    pub object: String,
    /// `org_…` it belongs to.
    pub organization_id: String,
    /// One entry for each resource that is counted.
    pub resources: Vec<QuotaUse>,
}

/// How much of one quota is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaUse {
    /// `clusters`, `nodes`, `node_pools`, `join_tokens`, `kubeconfigs`, `api_tokens`, `projects`; in a refusal also
    /// `organizations`, which counts those a person owns (more may come).
    pub resource: String,
    /// How many there are; more than `limit` where that was lowered. Credentials count while they can be used, nodes from
    /// the moment a pool asks for them.
    pub used: u64,
    /// How many there may be.
    pub limit: u64,
}
