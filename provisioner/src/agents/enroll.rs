//! A token and four signing requests become a node: its row, its certificates, its first configuration.
//!
//! The same machine may repeat the call with the same token and gets the same node; that is how a lost answer is made good.

use std::time::Instant;

use migrations::{EnrollError, Enrolled, Enrollment, NodeInfo, WorkKind};
use node_protocol::{EnrollReply, EnrollRequest, MachineFacts};
use tenant_controlplane::text::printable_within;
use tonic::Status;

use super::certificates::{Requests, sign_apart};
use super::{Agents, unavailable};
use crate::node_context::NodeContext;

/// The longest of any of an agent's words on itself.
const WORD: usize = 200;
const ADDRESSES: usize = 32;

/// Lets a machine in.
///
/// # Errors
/// As agent.proto says.
pub async fn enroll(agents: &Agents, request: EnrollRequest) -> Result<EnrollReply, Status> {
    if request.fingerprint.is_empty() || request.fingerprint.len() > WORD {
        return Err(Status::invalid_argument("the machine fingerprint is missing or too long"));
    }
    count(agents, &request)?;
    let reported = request.facts.unwrap_or_default();
    let store = &agents.inner.store;
    let enrollment = Enrollment {
        token_secret: &request.token,
        fingerprint: &request.fingerprint,
        hostname: &reported.hostname,
        requested_name: &request.node_name,
        facts: facts(&reported, ""),
    };
    let Enrolled { node, cluster, pool } = store.nodes().enroll(enrollment).await.map_err(|error| refused(&error))?;
    let pki = agents.inner.signers.get(store, cluster.id).await.map_err(|error| unavailable(&error))?;
    let pki = pki.ok_or_else(|| Status::failed_precondition("the cluster is still being created: try again"))?;
    let requests = Requests {
        link: request.link_csr,
        kubelet: request.kubelet_csr,
        proxy: request.proxy_csr,
        serving: request.serving_csr,
    };
    let certificates = sign_apart(agents, pki.clone(), node.clone(), requests).await?;
    let own = NodeContext { node, pool, cluster };
    let config = agents.desired(&own, &pki, 0).await.map_err(|error| unavailable(&error))?;
    store.work().due(WorkKind::Node, own.node.id.uuid()).await.map_err(|error| unavailable(&error))?;
    tracing::info!(node = %own.node.id, name = %own.node.name, cluster = %own.cluster.id, "node enrolled");
    Ok(EnrollReply {
        node_id: own.node.id.to_string(),
        cluster_id: own.cluster.id.to_string(),
        node_name: own.node.name.to_string(),
        certificates: Some(certificates),
        config: Some(config),
    })
}

/// Each enrollment is a transaction and four signatures, repeats of one machine too.
fn count(agents: &Agents, request: &EnrollRequest) -> Result<(), Status> {
    let counted = agents.inner.bounds.enroll(&request.token, &request.fingerprint, Instant::now());
    // Agents try again after this code.
    counted.map_err(|wait| {
        let seconds = wait.as_secs() + 1;
        Status::unavailable(format!("too many requests with this join token: try again in {seconds} s"))
    })
}

fn refused(error: &EnrollError) -> Status {
    let message = error.to_string();
    match error {
        EnrollError::Unknown | EnrollError::Expired | EnrollError::Revoked | EnrollError::UsedUp => {
            Status::unauthenticated(message)
        }
        EnrollError::UsedElsewhere | EnrollError::Removed => Status::permission_denied(message),
        EnrollError::Store(error) => unavailable(error),
        _ => Status::invalid_argument(message),
    }
}

fn short(text: &str) -> String {
    printable_within(text, WORD)
}

/// What a machine reports of itself, truncated; the kubelet's version comes from Kubernetes.
pub fn facts(reported: &MachineFacts, kubelet_version: &str) -> NodeInfo {
    NodeInfo {
        kubelet_version: kubelet_version.to_owned(),
        os: short(&reported.os),
        arch: short(&reported.arch),
        kernel: short(&reported.kernel),
        addresses: reported.addresses.iter().take(ADDRESSES).map(|address| short(address)).collect(),
    }
}
