//! Kubeconfigs for the portal: signed by the provisioner's code, so that the portal never holds a tenant's key.

use std::sync::Arc;

use async_trait::async_trait;
use migrations::{Kubeconfig, Store};
use portal::{IssueError, Issuer};
use provisioner::{InstallationInfo as Facts, KubeconfigError, Server, issue_kubeconfig};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::status::KubeconfigEndpoint;

use super::ports::ClusterPorts;

/// Signs with what the store keeps encrypted.
pub struct StoreIssuer {
    store: Store,
    facts: Facts,
    ports: Option<Arc<ClusterPorts>>,
}

impl StoreIssuer {
    /// An issuer over `store`.
    pub fn new(store: Store, facts: Facts, ports: Option<Arc<ClusterPorts>>) -> Self {
        Self { store, facts, ports }
    }

    async fn port(&self, cluster: ClusterId) -> Result<u16, IssueError> {
        let no_port = |detail: String| IssueError::NoPort(detail);
        let ports =
            self.ports.as_ref().ok_or_else(|| no_port("clusters have no ports of their own here".to_owned()))?;
        ports.of(cluster).await.map_err(|error| no_port(format!("the cluster's own port cannot be had: {error:#}")))
    }
}

#[async_trait]
impl Issuer for StoreIssuer {
    async fn kubeconfig(&self, kubeconfig: &Kubeconfig, endpoint: KubeconfigEndpoint) -> Result<String, IssueError> {
        let server = match endpoint {
            KubeconfigEndpoint::Sni => Server::Sni,
            KubeconfigEndpoint::Dns => Server::Dns,
            KubeconfigEndpoint::Port => Server::Port(self.port(kubeconfig.cluster).await?),
        };
        let issued = issue_kubeconfig(&self.store, &self.facts, (kubeconfig, server)).await;
        issued.map_err(|error| match error {
            KubeconfigError::NotYet => IssueError::NotReady,
            other => IssueError::Failed(Box::new(other)),
        })
    }
}
