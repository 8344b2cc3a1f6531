//! A node's four certificates. Only the public keys of its requests are taken; who it is, the platform says. kubelet serves under the
//! node's name and the one address the platform gave it, the first of its pod range: nothing a machine reports gets into a certificate.

use std::net::IpAddr;
use std::sync::Arc;

use migrations::Node;
use node_protocol::Certificates;
use tenant_controlplane::pki::{
    Ca, ClusterPki, PkiError, Subject, Validity, kubelet_client, kubelet_serving, link_node, node_proxy, sign_csr,
};
use time::{Duration, OffsetDateTime};
use tonic::Status;

use super::{Agents, unavailable};

/// How long the link's certificate lasts, and kubelet's as a server: the gateway and the API server ask whether the node is still
/// one. Agents renew all four in the second half of the shortest; a machine that is off for longer than this joins anew.
const LINK: Duration = Duration::days(30);
/// As clients of the API server, which is told whom to refuse for this long. A machine that was off for longer renews them over its link
/// before it starts them.
const CLIENT: Duration = Duration::hours(24);

/// The requests, PEM.
pub struct Requests {
    /// For the node link.
    pub link: String,
    /// For the kubelet's client certificate.
    pub kubelet: String,
    /// For kube-proxy's client certificate.
    pub proxy: String,
    /// For the kubelet's serving certificate.
    pub serving: String,
}

/// Signs all four, on the small pool that signs: requests are verified and signed for a millisecond, by whoever may ask.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is no signing request; `INTERNAL` when signing fails; `UNAVAILABLE` when too many wait.
pub async fn sign_apart(
    agents: &Agents,
    pki: Arc<ClusterPki>,
    node: Node,
    requests: Requests,
) -> Result<Certificates, Status> {
    let signed = agents.inner.signing.run(move || sign(&pki, &node, &requests)).await;
    signed.unwrap_or_else(|error| Err(unavailable(&error)))
}

fn sign(pki: &ClusterPki, node: &Node, requests: &Requests) -> Result<Certificates, Status> {
    let now = OffsetDateTime::now_utc();
    let sign = |(ca, lifetime): (&Ca, Duration), what: &str, csr: &str, subject: &Subject| {
        sign_csr(ca, csr, subject, Validity::from_now(now, lifetime)).map_err(|error| refused(what, &error))
    };
    let own: Vec<IpAddr> = node.pod_cidr.hosts().next().map(IpAddr::V4).into_iter().collect();
    let (link, client, kubelet) = (&pki.link.current, &pki.client.current, &pki.kubelet.current);
    Ok(Certificates {
        link_cert: sign((link, LINK), "link", &requests.link, &link_node(node.cluster, node.id))?,
        kubelet_cert: sign((client, CLIENT), "kubelet", &requests.kubelet, &kubelet_client(&node.name))?,
        proxy_cert: sign((client, CLIENT), "proxy", &requests.proxy, &node_proxy(&node.name))?,
        serving_cert: sign((kubelet, LINK), "serving", &requests.serving, &kubelet_serving(&node.name, &own))?,
    })
}

fn refused(what: &str, error: &PkiError) -> Status {
    match error {
        PkiError::Csr(_) | PkiError::CsrKey => Status::invalid_argument(format!("the {what} signing request: {error}")),
        _ => {
            tracing::warn!(what, error = crate::chain(error), "sign a node's certificate");
            Status::internal("certificate issuance failed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_outlives_every_certificate() {
        assert!(migrations::Tombstones::LIFE > LINK.max(CLIENT) + Duration::days(7));
    }
}
