//! What goes wrong at a provider, told so that the right one can act on it.

use thiserror::Error;

/// Whose doing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderErrorClass {
    /// The user's: a wrong size, credentials that ended.
    User,
    /// This installation's: a missing tool, a full disk.
    Platform,
    /// The provider's: its API is down.
    Provider,
    /// A limit was reached.
    Quota,
}

/// A call that failed. The texts are for people and hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ProviderError {
    /// Whose doing it is.
    pub class: ProviderErrorClass,
    /// What happened.
    pub message: String,
    /// The next step for whoever must act.
    pub remediation: String,
    /// Whether the same call may succeed later without anybody acting.
    pub retryable: bool,
}

impl ProviderError {
    /// An error that goes away by itself, or when someone mends what `remediation` names.
    pub fn retryable(class: ProviderErrorClass, message: impl Into<String>, remediation: impl Into<String>) -> Self {
        Self { class, message: message.into(), remediation: remediation.into(), retryable: true }
    }

    /// An error that stays until the request changes.
    pub fn lasting(class: ProviderErrorClass, message: impl Into<String>, remediation: impl Into<String>) -> Self {
        Self { class, message: message.into(), remediation: remediation.into(), retryable: false }
    }
}
