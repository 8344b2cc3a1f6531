//! Kubeconfigs' rights inside the tenant: each is in its role's group, which the addons bind. One is told to work only when its role has
//! all that it promises: Kubernetes fills roles some seconds after a cluster's start.
//!
//! After a revocation, what its holder may have left behind is told. Nothing here decides whether a kubeconfig is revoked, but for those
//! from before each had an authority of its own: their binding is deleted.

use std::collections::BTreeSet;

use migrations::Kubeconfig;
use serde_json::Value;
use tenant_controlplane::addon::{Aggregate, aggregate, kubeconfig_binding_name};
use tenant_controlplane::id::{ClusterId, KubeconfigId};
use tenant_controlplane::pki::kubeconfig_user_name;
use tenant_controlplane::status::AccessRole;
use tenant_controlplane::text::{LONGEST, printable, printable_within};

use crate::context::Context;
use crate::error::ReconcileError;
use crate::host::bindings::RBAC;
use crate::host::{ApiError, Kubernetes, ObjectKey};

/// So many objects of a kind are named to people.
const NAMED: usize = 10;
/// The most characters of one object's name, which its maker chose: Kubernetes allows 253, and a path segment for RBAC.
const NAME: usize = 60;
/// The most characters about one kind: both, and the blank between them, fit into what is kept.
const KIND: usize = (LONGEST - 1) / 2;

/// Those not yet known to work whose certificate the API servers accept; to be [`confirm`]ed.
///
/// # Errors
/// [`ReconcileError`] of the store.
pub async fn unconfirmed(
    ctx: &Context,
    cluster: ClusterId,
    accepted: &BTreeSet<KubeconfigId>,
) -> Result<Vec<Kubeconfig>, ReconcileError> {
    let mut rows = ctx.store.kubeconfigs().unbound(cluster).await?;
    rows.retain(|row| row.authority.is_none() || accepted.contains(&row.id));
    Ok(rows)
}

/// Deletes the bindings of kubeconfigs without an authority that are revoked or have ended. What the tenant refuses is told and tried
/// again at the next visit.
///
/// # Errors
/// [`ReconcileError`] of the store.
pub async fn release(ctx: &Context, cluster: ClusterId, api: &dyn Kubernetes) -> Result<(), ReconcileError> {
    for row in ctx.store.kubeconfigs().revoked_unapplied(cluster).await? {
        match delete_binding(row.id, api).await {
            Ok(true) => ctx.store.kubeconfigs().mark_refused(row.id).await?,
            Ok(false) => {}
            Err(error) => {
                let text =
                    format!("Its role binding {} could not be deleted: {error}.", kubeconfig_binding_name(row.id));
                ctx.store.kubeconfigs().set_left_behind(row.id, Some(&printable(&text))).await?;
            }
        }
    }
    Ok(())
}

/// Whether the binding was seen to be gone.
async fn delete_binding(kubeconfig: KubeconfigId, api: &dyn Kubernetes) -> Result<bool, ApiError> {
    let key = ObjectKey::global(RBAC, "ClusterRoleBinding", &kubeconfig_binding_name(kubeconfig));
    api.delete(&key).await?;
    Ok(api.get(&key).await?.is_none())
}

/// Notes for each of these revoked kubeconfigs what its holder may have left inside the cluster.
///
/// # Errors
/// [`ReconcileError`] of the store.
pub async fn list_left_behind(
    ctx: &Context,
    revoked: Vec<KubeconfigId>,
    api: &dyn Kubernetes,
) -> Result<(), ReconcileError> {
    for kubeconfig in revoked {
        let row = ctx.store.kubeconfigs().load(kubeconfig).await?;
        if let Some(text) = left_behind(&row, api).await {
            ctx.store.kubeconfigs().set_left_behind(kubeconfig, Some(&printable(&text))).await?;
        }
    }
    Ok(())
}

/// What is bound to its user, which would work again if that name ever came back; and, where its holder could make them, tokens of service
/// accounts that were made while it worked: by whom Kubernetes does not record. It is a courtesy: that a tenant does not answer is
/// reported too.
async fn left_behind(row: &Kubeconfig, api: &dyn Kubernetes) -> Option<String> {
    let bindings = api.bindings_of(&kubeconfig_user_name(row.id)).await;
    let bindings = named(bindings, "Role bindings that still name its user", "Role bindings of its user");
    let tokens = match row.role {
        AccessRole::Admin => named(
            tokens_since(row, api).await,
            "Tokens of service accounts made since it was issued",
            "Tokens of service accounts",
        ),
        AccessRole::Edit | AccessRole::View => None,
    };
    // Tokens work now; a binding only if the name ever came back.
    let texts: Vec<String> = tokens.into_iter().chain(bindings).collect();
    (!texts.is_empty()).then(|| texts.join(" "))
}

/// Those that do not end by themselves.
async fn tokens_since(row: &Kubeconfig, api: &dyn Kubernetes) -> Result<Vec<ObjectKey>, ApiError> {
    let mut secrets = api.token_secrets().await?;
    secrets.retain(|secret| secret.created_at >= row.created_at.unix_timestamp());
    Ok(secrets.iter().map(|secret| secret.key("v1", "Secret")).collect())
}

/// What was found of a kind, within [`KIND`] characters: the number first, then as many names as there is room for, so that no name takes
/// another kind's place.
fn named(found: Result<Vec<ObjectKey>, ApiError>, what: &str, kind: &str) -> Option<String> {
    let found = match found {
        Ok(found) if found.is_empty() => return None,
        Ok(found) => found,
        Err(error) => return Some(printable_within(&format!("{kind} could not be listed: {error}."), KIND)),
    };
    let text_of = |names: &[String]| {
        let more = found.len() - names.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{what}: {} ({}{more}). Delete those you do not know.", found.len(), names.join(", "))
    };
    let names: Vec<String> = found.iter().take(NAMED).map(name).collect();
    let fits = |count: &usize| text_of(&names[..*count]).chars().count() <= KIND;
    let most = (1..=names.len()).rev().find(fits).unwrap_or_default();
    Some(text_of(&names[..most]))
}

/// Kind, namespace and name, as far as people need them to find it.
fn name(key: &ObjectKey) -> String {
    let namespace = key.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    format!("{} {}", key.kind, printable_within(&format!("{namespace}{}", key.name), NAME))
}

/// Tells people that these kubeconfigs work; answers those that do not yet.
///
/// # Errors
/// [`ReconcileError`] of the store or the tenant's API server.
pub async fn confirm(
    ctx: &Context,
    pending: Vec<Kubeconfig>,
    api: &dyn Kubernetes,
) -> Result<Vec<Kubeconfig>, ReconcileError> {
    let mut waiting = Vec::new();
    for kubeconfig in pending {
        if works(kubeconfig.role, api).await? {
            ctx.store.kubeconfigs().mark_bound(kubeconfig.id).await?;
        } else {
            waiting.push(kubeconfig);
        }
    }
    Ok(waiting)
}

/// Whether a role has all the rules it should have.
async fn works(role: AccessRole, api: &dyn Kubernetes) -> Result<bool, ReconcileError> {
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

async fn rules(role: &str, api: &dyn Kubernetes) -> Result<Vec<Value>, ReconcileError> {
    let found = api.get(&ObjectKey::global(RBAC, "ClusterRole", role)).await;
    let found = found.map_err(ReconcileError::cluster_api)?.unwrap_or_default();
    Ok(found["rules"].as_array().cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(count: usize, kind: &str) -> Vec<ObjectKey> {
        let key = |index| ObjectKey::namespaced(RBAC, kind, &"n".repeat(40), &format!("{index}{}", "x".repeat(239)));
        (0..count).map(key).collect()
    }

    #[test]
    fn no_names_take_the_place_of_another_kind() {
        for (tokens, bindings) in [(1, 3), (500, 500)] {
            let tokens_text = named(Ok(found(tokens, "Secret")), "Tokens", "").unwrap();
            let bindings_text = named(Ok(found(bindings, "ClusterRoleBinding")), "Bindings", "").unwrap();
            let text = format!("{tokens_text} {bindings_text}");
            assert_eq!(printable(&text), text, "nothing is cut");
            assert!(text.contains(&format!("Tokens: {tokens} (Secret ")), "{text}");
            assert!(text.contains(&format!("Bindings: {bindings} (ClusterRoleBinding ")), "{text}");
        }
        let refused = ApiError::TooLong("x".repeat(5000));
        assert!(named(Err(refused), "", "Bindings").unwrap().chars().count() <= KIND);
    }
}
