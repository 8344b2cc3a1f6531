//! Kubernetes versions this instance can run.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One available version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KubernetesVersion {
    /// For example `1.36.3`.
    pub version: String,
    /// `supported` (more words may come).
    pub state: String,
    /// Whether it is the default.
    pub default: bool,
}
