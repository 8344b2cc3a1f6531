//! The names by which the gateway knows things. All of them but the portal's carry a cluster's *label*: the 26 characters of its id.

use node_protocol::server_name;

use crate::id::ClusterId;

/// The host namespace that holds a cluster's control plane.
pub fn namespace(cluster: ClusterId) -> String {
    format!("ph-{}", cluster.suffix())
}

/// What people's kubectl asks for; passed through untouched to the tenant's API server.
pub fn api(cluster: ClusterId, domain: &str) -> String {
    server_name::api(&cluster.suffix(), domain)
}

/// What the tenant's API server asks for when it wants to reach a node or a pod.
pub fn egress(cluster: ClusterId, domain: &str) -> String {
    server_name::egress(&cluster.suffix(), domain)
}

/// Who signs the service-account tokens of a cluster; unique per cluster, so that no other cluster's tokens are ever taken for its own.
pub fn issuer(cluster: ClusterId, domain: &str) -> String {
    format!("https://{}", api(cluster, domain))
}
