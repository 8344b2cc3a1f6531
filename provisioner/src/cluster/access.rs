//! Kubeconfigs' rights inside the tenant: one binding per file. Deleting it revokes exactly that file.

use futures::future::try_join_all;
use tenant_controlplane::addon::{kubeconfig_binding, kubeconfig_binding_name};
use tenant_controlplane::id::{ClusterId, KubeconfigId};

use crate::context::Context;
use crate::host::{Kubernetes, ObjectKey};
use crate::trouble::Trouble;

fn key(kubeconfig: KubeconfigId) -> ObjectKey {
    ObjectKey::global("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", &kubeconfig_binding_name(kubeconfig))
}

/// Takes revoked rights away and gives new ones; answers whose, to be [`confirm`]ed once the roles they name are there.
///
/// # Errors
/// [`Trouble`] of the store or the tenant's API server.
pub async fn apply(ctx: &Context, cluster: ClusterId, api: &dyn Kubernetes) -> Result<Vec<KubeconfigId>, Trouble> {
    for revoked in ctx.store.kubeconfigs().revoked_unapplied(cluster).await? {
        revoke(ctx, revoked.id, api).await?;
    }
    let new = ctx.store.kubeconfigs().unbound(cluster).await?;
    let bindings: Vec<_> = new.iter().map(|new| kubeconfig_binding(new.id, new.role)).collect();
    let applied = try_join_all(bindings.iter().map(|binding| api.apply(binding))).await;
    applied.map_err(|error| Trouble::api("cluster", error))?;
    Ok(new.iter().map(|new| new.id).collect())
}

/// Deletes one binding, and believes it only when it is seen to be gone.
async fn revoke(ctx: &Context, kubeconfig: KubeconfigId, api: &dyn Kubernetes) -> Result<(), Trouble> {
    let key = key(kubeconfig);
    api.delete(&key).await.map_err(|error| Trouble::api("cluster", error))?;
    let left = api.get(&key).await.map_err(|error| Trouble::api("cluster", error))?;
    if left.is_none() {
        ctx.store.kubeconfigs().mark_unbound(kubeconfig).await?;
    }
    Ok(())
}

/// Tells people that these kubeconfigs work.
///
/// # Errors
/// [`Trouble`] of the store.
pub async fn confirm(ctx: &Context, granted: Vec<KubeconfigId>) -> Result<(), Trouble> {
    for kubeconfig in granted {
        ctx.store.kubeconfigs().mark_bound(kubeconfig).await?;
    }
    Ok(())
}
