//! Kubeconfigs' rights inside the tenant: one binding per file. Deleting it revokes exactly that file.
//!
//! A file is told to work only when the role it names does: Kubernetes fills `view` and `edit` after a cluster's start.

use futures::future::try_join_all;
use migrations::Kubeconfig;
use serde_json::Value;
use tenant_controlplane::addon::{Aggregate, aggregate, kubeconfig_binding, kubeconfig_binding_name};
use tenant_controlplane::id::{ClusterId, KubeconfigId};
use tenant_controlplane::status::AccessRole;

use crate::context::Context;
use crate::host::{Kubernetes, ObjectKey};
use crate::trouble::Trouble;

const RBAC: &str = "rbac.authorization.k8s.io/v1";

fn key(kubeconfig: KubeconfigId) -> ObjectKey {
    ObjectKey::global(RBAC, "ClusterRoleBinding", &kubeconfig_binding_name(kubeconfig))
}

/// Takes rights away that were revoked or have ended, and gives new ones; answers which, to be [`confirm`]ed once the roles they name are there.
///
/// # Errors
/// [`Trouble`] of the store or the tenant's API server.
pub async fn apply(ctx: &Context, cluster: ClusterId, api: &dyn Kubernetes) -> Result<Vec<Kubeconfig>, Trouble> {
    for revoked in ctx.store.kubeconfigs().revoked_unapplied(cluster).await? {
        revoke(ctx, revoked.id, api).await?;
    }
    let new = ctx.store.kubeconfigs().unbound(cluster).await?;
    let bindings: Vec<_> = new.iter().map(|new| kubeconfig_binding(new.id, new.role)).collect();
    let applied = try_join_all(bindings.iter().map(|binding| api.apply(binding))).await;
    applied.map_err(|error| Trouble::api("cluster", error))?;
    Ok(new)
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

/// Tells people that these kubeconfigs work; answers those that do not yet.
///
/// # Errors
/// [`Trouble`] of the store or the tenant's API server.
pub async fn confirm(
    ctx: &Context,
    granted: Vec<Kubeconfig>,
    api: &dyn Kubernetes,
) -> Result<Vec<Kubeconfig>, Trouble> {
    let mut waiting = Vec::new();
    for kubeconfig in granted {
        if works(kubeconfig.role, api).await? {
            ctx.store.kubeconfigs().mark_bound(kubeconfig.id).await?;
        } else {
            waiting.push(kubeconfig);
        }
    }
    Ok(waiting)
}

/// Whether a role has all the rules it should have.
async fn works(role: AccessRole, api: &dyn Kubernetes) -> Result<bool, Trouble> {
    let Some(Aggregate { name, sources }) = aggregate(role) else { return Ok(true) };
    let whole = rules(name, api).await?;
    for source in sources {
        let part = rules(source, api).await?;
        if part.is_empty() || !part.iter().all(|rule| whole.contains(rule)) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn rules(role: &str, api: &dyn Kubernetes) -> Result<Vec<Value>, Trouble> {
    let found = api.get(&ObjectKey::global(RBAC, "ClusterRole", role)).await;
    let found = found.map_err(|error| Trouble::api("cluster", error))?.unwrap_or_default();
    Ok(found["rules"].as_array().cloned().unwrap_or_default())
}
