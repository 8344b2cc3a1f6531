//! Why a reconcile failed: the cause for the log, and a [`Problem`] with the next step for people.

use cloud_providers::{ProviderError, ProviderErrorClass};
use migrations::StoreError;
use tenant_controlplane::pki::PkiError;
use tenant_controlplane::status::{Class, Problem, ProblemCode};
use tenant_controlplane::text::printable;
use thiserror::Error;

use crate::host::{ApiError, ApiErrorKind};

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
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Problem::new(code, printable(&detail.into())).into()
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

    /// The host's API server did not do what it was asked.
    pub fn host_api(error: ApiError) -> Self {
        let code = match error.kind() {
            ApiErrorKind::Refused => ProblemCode::HostRefused,
            ApiErrorKind::Unreachable => ProblemCode::HostUnreachable,
            ApiErrorKind::TooLong => ProblemCode::HostTooLong,
            ApiErrorKind::Defect => ProblemCode::HostDefect,
        };
        let is_over_quota =
            matches!(&error, ApiError::Rejected { code: 403, message, .. } if message.contains("exceeded quota"));
        let failure = Self::new(code, format!("The host's API server: {error}.")).because(error);
        if is_over_quota { failure.of(Class::Platform, HOST_QUOTA) } else { failure }
    }

    /// A cluster's API server did not do what it was asked.
    ///
    /// Class and remedy follow from the status it answered. What it says is only quoted: its owner's webhooks, policies and aggregated
    /// API servers write it.
    pub fn cluster_api(error: ApiError) -> Self {
        let code = match error.kind() {
            ApiErrorKind::Refused => ProblemCode::ClusterRefused,
            ApiErrorKind::Unreachable => ProblemCode::ClusterUnreachable,
            ApiErrorKind::TooLong => ProblemCode::ClusterTooLong,
            ApiErrorKind::Defect => ProblemCode::ClusterDefect,
        };
        let is_owners = match &error {
            ApiError::Rejected { code, .. } => is_rejection(*code),
            other => matches!(other, ApiError::TooLong(_)),
        };
        let failure = Self::new(code, format!("The cluster's API server: {error}.")).because(error);
        // One that fails by itself is the operator's, whatever its code.
        let operators = ProblemCode::ClusterDefect.entry();
        if is_owners { failure } else { failure.of(operators.class, operators.remediation) }
    }
}

impl From<Problem> for ReconcileError {
    fn from(problem: Problem) -> Self {
        Self { problem, terminal: false, source: None }
    }
}

impl From<StoreError> for ReconcileError {
    fn from(error: StoreError) -> Self {
        Self::new(ProblemCode::DatabaseUnavailable, format!("Database error: {error}.")).because(error)
    }
}

impl From<PkiError> for ReconcileError {
    fn from(error: PkiError) -> Self {
        Self::new(ProblemCode::Certificates, format!("Certificate issuance failed: {error}.")).because(error)
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
        let failure = Self::new(ProblemCode::Machine, error.message.clone()).of(class, &error.remediation);
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
        let error = ApiError::Rejected { what: "apply ClusterRoleBinding x".to_owned(), code, message };
        if owner == "host" {
            ReconcileError::host_api(error).problem
        } else {
            ReconcileError::cluster_api(error).problem
        }
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
