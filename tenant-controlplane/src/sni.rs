//! The names by which the gateway knows things. All of them but the portal's carry a cluster's *label*: the 26 characters of its id.

use crate::id::ClusterId;

/// The host namespace that holds a cluster's control plane.
pub fn namespace(cluster: ClusterId) -> String {
    format!("ph-{}", cluster.suffix())
}

/// What people's kubectl asks for; passed through untouched to the tenant's API server.
pub fn api(cluster: ClusterId, domain: &str) -> String {
    format!("{}.api.{domain}", cluster.suffix())
}

/// What a joined agent asks for; the gateway ends TLS and demands a certificate of that cluster's link CA.
pub fn link(cluster: ClusterId, domain: &str) -> String {
    format!("{}.link.{domain}", cluster.suffix())
}

/// What the tenant's API server asks for when it wants to reach a node or a pod.
pub fn egress(cluster: ClusterId, domain: &str) -> String {
    format!("{}.egress.{domain}", cluster.suffix())
}

/// What an agent without a certificate asks for, to enrol.
pub fn enrolment(domain: &str) -> String {
    format!("link.{domain}")
}

/// Who signs the service-account tokens of a cluster; unique per cluster, so that no other cluster's tokens are ever taken for its own.
pub fn issuer(cluster: ClusterId, domain: &str) -> String {
    format!("https://{}", api(cluster, domain))
}
