//! Kubeconfigs for the portal: signed by the provisioner's code, so that the portal never holds a tenant's key.

use async_trait::async_trait;
use migrations::{Kubeconfig, Store};
use portal::{IssueError, Issuer};
use provisioner::{Facts, KubeconfigError, issue_kubeconfig};
use tenant_controlplane::id::ClusterId;

/// Signs with what the store keeps encrypted.
pub struct StoreIssuer {
    store: Store,
    facts: Facts,
}

impl StoreIssuer {
    /// An issuer over `store`.
    pub fn new(store: Store, facts: Facts) -> Self {
        Self { store, facts }
    }
}

#[async_trait]
impl Issuer for StoreIssuer {
    async fn kubeconfig(&self, cluster: ClusterId, kubeconfig: &Kubeconfig) -> Result<String, IssueError> {
        issue_kubeconfig(&self.store, &self.facts, cluster, kubeconfig).await.map_err(|error| match error {
            KubeconfigError::NotYet => IssueError::NotReady,
            other => IssueError::Failed(Box::new(other)),
        })
    }
}
