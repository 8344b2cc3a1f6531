//! Quotas: how many of each resource an organization has, and may have.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The quotas of an organization. The platform operator sets the limits (`pilothouse admin quota set`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quota {
    /// Always `quota`.
    pub object: String,
    /// `org_…` it belongs to.
    pub organization_id: String,
    /// One entry for each counted resource.
    pub resources: Vec<QuotaUse>,
}

/// Usage of one quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuotaUse {
    /// `clusters`, `nodes`, `node_pools`, `join_tokens`, `kubeconfigs`, `api_tokens`, `projects`; in an error also
    /// `organizations`, which counts those a person owns (more may come).
    pub resource: String,
    /// Current usage; more than `limit` where that was lowered. Credentials count while they are valid, nodes from
    /// the moment a pool requests them.
    pub used: u64,
    /// The limit.
    pub limit: u64,
}
