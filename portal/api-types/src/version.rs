//! Kubernetes versions this instance can run.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One version on offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KubernetesVersion {
    /// For example `1.36.3`.
    pub version: String,
    /// `supported` (more words may come).
    pub state: String,
    /// Whether it is taken when a request names none.
    pub default: bool,
}
