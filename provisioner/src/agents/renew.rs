//! New certificates for a node that shows its old ones: for the same name and address.

use migrations::{Actor, NewAudit, Node};
use node_protocol::{Certificates, RenewRequest};
use time::Duration;
use tonic::Status;

use super::certificates::{Requests, sign_apart};
use super::{Agents, unavailable};

/// An agent may ask as often as it is let: the audit log says so once in this time.
const NOTED_EVERY: Duration = Duration::minutes(10);

/// Signs anew, and writes it in the audit log.
///
/// # Errors
/// As enrollment's signing.
pub async fn renew(agents: &Agents, node: &Node, request: RenewRequest) -> Result<Certificates, Status> {
    let inner = &agents.inner;
    let pki = inner.signers.get(&inner.store, node.cluster).await.map_err(|error| unavailable(&error))?;
    let pki = pki.ok_or_else(|| Status::failed_precondition("the cluster has no keys"))?;
    let RenewRequest { link_csr: link, kubelet_csr: kubelet, proxy_csr: proxy, serving_csr: serving } = request;
    let certificates = sign_apart(agents, pki, node.clone(), Requests { link, kubelet, proxy, serving }).await?;
    let (organization, target) = (Some(node.organization), node.id.to_string());
    let (actor, action, detail) = (Actor::Node(node.id), "node.renew", node.name.as_str());
    let new = NewAudit { organization, actor, action, target: &target, detail };
    let noted = agents.inner.store.audit().record_rarely(new, NOTED_EVERY).await;
    noted.map_err(|error| unavailable(&error))?;
    Ok(certificates)
}
