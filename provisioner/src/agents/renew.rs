//! New certificates for a node that shows its old ones: for the same name and address.

use migrations::Node;
use node_protocol::{Certificates, RenewRequest};
use tonic::Status;

use super::certificates::{Requests, sign};
use super::{Agents, unavailable};

/// Signs anew.
///
/// # Errors
/// As enrolment's signing.
pub async fn renew(agents: &Agents, node: &Node, request: RenewRequest) -> Result<Certificates, Status> {
    let pki = agents.inner.store.pki().get(node.cluster).await.map_err(|error| unavailable(&error))?;
    let pki = pki.ok_or_else(|| Status::failed_precondition("the cluster has no keys"))?;
    let RenewRequest { link_csr: link, kubelet_csr: kubelet, proxy_csr: proxy, serving_csr: serving } = request;
    sign(&pki, node, &Requests { link, kubelet, proxy, serving })
}
