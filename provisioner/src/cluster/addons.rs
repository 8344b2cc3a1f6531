//! What belongs inside every tenant: rights, the API server's address for pods, DNS.

use futures::future::try_join_all;
use migrations::Cluster;
use tenant_controlplane::addon::{AddonInput, NAMESPACES, PRUNED, addons, cluster_admin, is_addon};
use tenant_controlplane::render::MANAGED_BY_LABEL;

use super::prune::{self, Scope};
use super::release;
use crate::context::{ApplyTarget, Context, fingerprint};
use crate::error::ReconcileError;
use crate::host::{ApiError, Kubernetes};

/// Applies the addons, and takes away what is none any more, unless this process did so a while ago.
///
/// # Errors
/// [`ReconcileError`] of the tenant's API server.
pub async fn apply(ctx: &Context, cluster: &Cluster, api: &dyn Kubernetes) -> Result<(), ReconcileError> {
    let release = release::of(ctx, cluster)?;
    let objects = addons(&AddonInput { spec: &cluster.spec, coredns_image: &release.coredns_image });
    let hash = fingerprint(&objects);
    if ctx.is_applied(cluster.id, ApplyTarget::Tenant, hash) {
        return Ok(());
    }
    // Their namespaces are Kubernetes' own, so nothing depends on the order; the access this is done with needs no binding.
    let new = (cluster.observed_generation == 0).then(cluster_admin);
    let applied = try_join_all(new.iter().chain(&objects).map(|object| api.apply(object))).await;
    applied.map_err(ReconcileError::cluster_api)?;
    // One that never was well has nothing from an older platform, and a person waits for it.
    if cluster.observed_generation > 0 {
        let labels = format!("{MANAGED_BY_LABEL}=pilothouse");
        let scope = Scope { kinds: PRUNED, namespaces: NAMESPACES, labels: &labels, is_ours: is_addon };
        match prune::surplus(api, &scope, &objects).await {
            // Its owner put our label on so much that it is not looked through; nothing depends on what an older platform left.
            Err(ApiError::TooLong(what)) => tracing::warn!(cluster = %cluster.id, what, "obsolete add-ons not pruned"),
            pruned => pruned.map_err(ReconcileError::cluster_api)?,
        }
    }
    ctx.set_applied(cluster.id, ApplyTarget::Tenant, hash);
    Ok(())
}
