//! A node's four certificates. Only the public keys of its requests are taken; who it is, the platform says.

use std::net::IpAddr;

use migrations::Node;
use node_protocol::Certificates;
use tenant_controlplane::pki::{
    Ca, ClusterPki, PkiError, Subject, Validity, kube_proxy, kubelet_client, kubelet_serving, link_node, sign_csr,
};
use time::{Duration, OffsetDateTime};
use tonic::Status;

/// How long they last. Agents renew them when two thirds are over; a machine that is off for longer joins anew.
const LIFETIME: Duration = Duration::days(30);
/// The most addresses one machine may have in its certificate.
const ADDRESSES: usize = 16;

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

/// Signs all four.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is no signing request; `INTERNAL` when signing fails.
pub fn sign(pki: &ClusterPki, node: &Node, requests: &Requests) -> Result<Certificates, Status> {
    let validity = Validity::from_now(OffsetDateTime::now_utc(), LIFETIME);
    let sign = |ca: &Ca, what: &str, csr: &str, subject: &Subject| {
        sign_csr(ca, csr, subject, validity).map_err(|error| refused(what, &error))
    };
    let serving = kubelet_serving(&node.name, &addresses(&node.facts.addresses));
    Ok(Certificates {
        link_cert: sign(&pki.link.current, "link", &requests.link, &link_node(node.cluster, node.id))?,
        kubelet_cert: sign(&pki.client.current, "kubelet", &requests.kubelet, &kubelet_client(&node.name))?,
        proxy_cert: sign(&pki.client.current, "proxy", &requests.proxy, &kube_proxy())?,
        serving_cert: sign(&pki.kubelet.current, "serving", &requests.serving, &serving)?,
    })
}

fn refused(what: &str, error: &PkiError) -> Status {
    match error {
        PkiError::Csr(_) | PkiError::CsrKey => Status::invalid_argument(format!("the {what} signing request: {error}")),
        _ => {
            tracing::warn!(what, error = crate::chain(error), "sign a node's certificate");
            Status::internal("the platform cannot sign the certificates")
        }
    }
}

/// Of the addresses a machine reports, those that can be a machine's own.
pub fn addresses(reported: &[String]) -> Vec<IpAddr> {
    reported.iter().filter_map(|text| text.parse().ok()).filter(is_own).take(ADDRESSES).collect()
}

fn is_own(address: &IpAddr) -> bool {
    let special = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    !special
        && match address {
            IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_broadcast() && v4.octets()[..2] != [198, 18],
            IpAddr::V6(v6) => !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_machines_own_addresses_count() {
        let reported = [
            "127.0.0.1",
            "::1",
            "10.0.0.5",
            "169.254.1.1",
            "198.18.0.1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "2001:db8::5",
            "x",
            "0.0.0.0",
        ];
        let own = addresses(&reported.map(ToOwned::to_owned));
        assert_eq!(own, ["10.0.0.5", "2001:db8::5"].map(|text| text.parse::<IpAddr>().unwrap()));
    }
}
