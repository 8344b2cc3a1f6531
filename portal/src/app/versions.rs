//! Kubernetes versions on offer.

use crate::error::Error;
use crate::state::AppState;
use api_types::KubernetesVersion;
use tenant_controlplane::version;

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

/// The version asked for, if this instance offers it; the default one where none is asked for.
///
/// # Errors
/// [`Error::Invalid`], which names those on offer.
pub(super) fn wanted(state: &AppState, text: Option<&str>) -> Result<version::KubernetesVersion, Error> {
    let Some(text) = text else { return Ok(state.config().versions.first().copied().unwrap_or_default()) };
    parse(state, text)
}

/// A version that this instance offers.
///
/// # Errors
/// As [`wanted`].
pub(super) fn parse(state: &AppState, text: &str) -> Result<version::KubernetesVersion, Error> {
    let offered = &state.config().versions;
    let plain = text.strip_prefix('v').unwrap_or(text);
    offered.iter().copied().find(|version| version.to_string() == plain).ok_or_else(|| {
        let known: Vec<String> = offered.iter().map(ToString::to_string).collect();
        let detail = format!("Kubernetes {text} is not available: choose {}", known.join(" or "));
        Error::field("/version", "VERSION_UNSUPPORTED", detail)
    })
}

/// The other versions on offer whose nodes may join a cluster of `version`.
pub fn older(state: &AppState, version: &str) -> Vec<String> {
    let Ok(server) = version::KubernetesVersion::parse(version) else { return Vec::new() };
    let fitting = state.config().versions.iter().filter(|one| **one != server && one.may_join(server).is_ok());
    fitting.map(ToString::to_string).collect()
}
