//! Kubernetes versions on offer.

use crate::state::AppState;
use api_types::KubernetesVersion;

/// The versions, the default one first.
pub fn list(state: &AppState) -> Vec<KubernetesVersion> {
    let versions = state.config().versions.iter().enumerate();
    versions
        .map(|(place, version)| KubernetesVersion {
            version: version.to_string(),
            state: "supported".into(),
            default: place == 0,
        })
        .collect()
}
