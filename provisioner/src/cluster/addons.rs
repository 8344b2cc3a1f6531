//! What belongs inside every tenant: rights, the API server's address for pods, DNS.

use migrations::Cluster;
use tenant_controlplane::addon::{AddonInput, addons};

use futures::future::try_join_all;

use crate::context::{Context, Place, fingerprint};
use crate::host::Kubernetes;
use crate::trouble::Trouble;

/// Applies the addons, unless this process did so a while ago.
///
/// # Errors
/// [`Trouble`] of the tenant's API server.
pub async fn apply(ctx: &Context, cluster: &Cluster, api: &dyn Kubernetes) -> Result<(), Trouble> {
    let objects = addons(&AddonInput { spec: &cluster.spec, coredns_image: &ctx.facts.coredns_image });
    let hash = fingerprint(&objects);
    if ctx.is_applied(cluster.id, Place::Tenant, hash) {
        return Ok(());
    }
    // Their namespaces are Kubernetes' own, so nothing depends on the order; the access this is done with needs no binding.
    let applied = try_join_all(objects.iter().map(|object| api.apply(object))).await;
    applied.map_err(|error| Trouble::api("cluster", error))?;
    ctx.set_applied(cluster.id, Place::Tenant, hash);
    Ok(())
}
