//! What a cluster's own admission webhooks do to the platform: one that fails closed and cannot be called stops everybody, us too.
//!
//! Whether there are any is looked up; what the API server says of them is only quoted.

use tenant_controlplane::status::Class;
use tenant_controlplane::text::printable_within;

use crate::error::ReconcileError;
use crate::host::{ApiError, Kubernetes};

const GROUP: &str = "admissionregistration.k8s.io/v1";
/// Kinds, and how kubectl calls them.
const WEBHOOKS: [(&str, &str); 2] = [
    ("ValidatingWebhookConfiguration", "validatingwebhookconfiguration"),
    ("MutatingWebhookConfiguration", "mutatingwebhookconfiguration"),
];
/// How many are named, and how much of each name.
const NAMED: usize = 3;
const LONGEST_NAME: usize = 63;

/// The same error; where webhooks may have caused it, with their names and what an admin of the cluster can do about them.
pub async fn explain(error: ReconcileError, api: &dyn Kubernetes) -> ReconcileError {
    if !error.cause().is_some_and(is_admissions) {
        return error;
    }
    let webhooks = webhooks(api).await;
    let Some(first) = webhooks.first() else { return error };
    let remediation = format!(
        "An unreachable admission webhook with failurePolicy Fail may block requests: {}. Cluster admin: fix or delete it \
         (kubectl delete {first}). Retrying automatically.",
        webhooks.join(", "),
    );
    error.of(Class::User, &remediation)
}

/// Whether it may be the doing of a webhook: it refuses, it lets the API server fail, or it lets it wait.
const fn is_admissions(error: &ApiError) -> bool {
    match error {
        ApiError::Rejected { code, .. } => *code >= 400 && !matches!(*code, 401 | 404 | 429),
        ApiError::Timeout | ApiError::Slow(_) => true,
        _ => false,
    }
}

/// Some of the webhooks there are, as kubectl calls them. What cannot be asked is not told.
async fn webhooks(api: &dyn Kubernetes) -> Vec<String> {
    let mut named = Vec::new();
    for (kind, word) in WEBHOOKS {
        match api.metadata(GROUP, kind, None, "").await {
            Ok(found) => {
                let names = found.iter().map(|one| printable_within(&one.name, LONGEST_NAME));
                named.extend(names.map(|name| format!("{word}/{name}")));
            }
            Err(error) => tracing::debug!(error = crate::chain(&error), "list webhooks"),
        }
    }
    named.truncate(NAMED);
    named
}
