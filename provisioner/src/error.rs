//! Why a reconcile failed: the cause for the log, and a [`Problem`] with the next step for people.

use cloud_providers::{ProviderError, ProviderErrorClass};
use migrations::StoreError;
use tenant_controlplane::pki::PkiError;
use tenant_controlplane::status::{Class, Problem};
use tenant_controlplane::text::printable;
use thiserror::Error;

use crate::host::ApiError;

/// What an admin of a cluster does about its API server's refusal: the platform may do everything there, unless the cluster's owner added
/// something that says no.
const REJECTED_BY_CLUSTER: &str = "The cluster rejects the request. Cluster admin: check its admission webhooks and policies: \
    kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations,validatingadmissionpolicies. \
    Retrying automatically.";

/// What an admin of a cluster does about answers that are broken off: Kubernetes itself makes none so long.
const RESPONSE_TOO_LARGE: &str = "Cluster admin: check for aggregated API servers: kubectl get apiservices. \
    Retrying automatically.";

/// What the operator does about a quota of the host.
const HOST_QUOTA: &str =
    "Retrying automatically. Platform operator: raise the ResourceQuota of the namespace on the host cluster.";

/// Whether a status says that the request was understood and refused. 401 is about our certificate, 408 and 429 are about load.
const fn is_rejection(status: u16) -> bool {
    matches!(status, 400..=499) && !matches!(status, 401 | 408 | 429)
}

/// A failed reconcile. It is retried with backoff unless `terminal`.
#[derive(Debug, Error)]
#[error("{}", problem.detail)]
pub struct ReconcileError {
    /// What people are shown.
    pub problem: Problem,
    /// Whether only a new spec can help.
    pub terminal: bool,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ReconcileError {
    /// ReconcileError that is worth another try.
    pub fn new(code: &str, class: Class, detail: impl Into<String>, remediation: impl Into<String>) -> Self {
        let (detail, remediation) = (printable(&detail.into()), printable(&remediation.into()));
        let problem = Problem { code: code.to_owned(), class, detail, remediation };
        Self { problem, terminal: false, source: None }
    }

    /// The same with its cause, for the log.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// What an API server did, where that is the cause.
    pub fn cause(&self) -> Option<&ApiError> {
        self.source.as_deref().and_then(|source| source.downcast_ref())
    }

    /// Whether an API server refused it for want of rights.
    pub fn is_forbidden(&self) -> bool {
        self.cause().is_some_and(ApiError::is_forbidden)
    }

    /// The same, when more is known of whose it is and of what helps.
    #[must_use]
    pub fn of(mut self, class: Class, remediation: &str) -> Self {
        (self.problem.class, self.problem.remediation) = (class, printable(remediation));
        self
    }

    /// An API server did not do what it was asked; `owner` is `host` or `cluster`.
    ///
    /// Class and remedy follow from whose it is and from the status it answered. What a tenant's API server says is only quoted: its
    /// owner's webhooks, policies and aggregated API servers write it.
    pub fn api(owner: &str, error: ApiError) -> Self {
        let code = format!("{}_{}", owner.to_uppercase(), error.code());
        let (class, remediation) = match &error {
            ApiError::Rejected { code: 403, message, .. } if owner == "host" && message.contains("exceeded quota") => {
                (Class::Platform, HOST_QUOTA.to_owned())
            }
            ApiError::Rejected { code, .. } if owner == "cluster" && is_rejection(*code) => {
                (Class::User, REJECTED_BY_CLUSTER.to_owned())
            }
            ApiError::TooLong(_) if owner == "cluster" => (Class::User, RESPONSE_TOO_LARGE.to_owned()),
            _ => (Class::Platform, format!("Retrying automatically. If it persists, check the {owner}'s API server.")),
        };
        Self::new(&code, class, format!("The {owner}'s API server: {error}."), remediation).because(error)
    }
}

impl From<StoreError> for ReconcileError {
    fn from(error: StoreError) -> Self {
        let detail = format!("Database error: {error}.");
        let remediation = "Retrying automatically. If it persists, platform operator: check the database.";
        Self::new("DATABASE_UNAVAILABLE", Class::Platform, detail, remediation).because(error)
    }
}

impl From<PkiError> for ReconcileError {
    fn from(error: PkiError) -> Self {
        let remediation = "This is a bug: report it with the platform's log.";
        Self::new("CERTIFICATES", Class::Platform, format!("Certificate issuance failed: {error}."), remediation)
            .because(error)
    }
}

impl From<ProviderError> for ReconcileError {
    fn from(error: ProviderError) -> Self {
        let class = match error.class {
            ProviderErrorClass::User => Class::User,
            ProviderErrorClass::Platform => Class::Platform,
            ProviderErrorClass::Provider => Class::Provider,
            ProviderErrorClass::Quota => Class::Quota,
        };
        let terminal = !error.retryable;
        let failure = Self::new("MACHINE", class, error.message.clone(), error.remediation.clone());
        Self { terminal, ..failure.because(error) }
    }
}

/// What a load found: a row, or that there is none.
pub fn found_or_none<T>(loaded: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match loaded {
        Ok(row) => Ok(Some(row)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(owner: &str, code: u16, message: &str) -> Problem {
        let message = message.to_owned();
        ReconcileError::api(owner, ApiError::Rejected { what: "apply ClusterRoleBinding x".to_owned(), code, message })
            .problem
    }

    #[test]
    fn a_tenants_words_choose_neither_class_nor_remedy() {
        let quota = "pods is forbidden: exceeded quota: q";
        assert_eq!(refused("host", 403, quota).class, Class::Platform);
        let webhook = refused("cluster", 403, quota);
        assert_eq!((webhook.class, &webhook.remediation), (Class::User, &refused("cluster", 403, "no").remediation));
        assert!(webhook.remediation.contains("kubectl get validatingwebhookconfigurations"));
        assert_eq!(refused("cluster", 500, quota).class, Class::Platform);
        assert_eq!(refused("cluster", 429, quota).class, Class::Platform);
    }

    #[test]
    fn what_is_quoted_is_short_and_moves_no_terminal() {
        let words = "\u{1b}[2J".to_owned() + &"no ".repeat(1 << 20);
        let detail = refused("cluster", 403, &words).detail;
        assert!(detail.chars().count() <= 600 && !detail.contains('\u{1b}'), "{detail}");
        assert!(detail.starts_with("The cluster's API server: apply ClusterRoleBinding x was refused (403): no no"));
    }
}
