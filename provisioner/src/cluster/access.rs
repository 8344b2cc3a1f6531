//! Kubeconfigs' rights inside the tenant: each is in its role's group, which the addons bind. One is told to work only when its role has
//! all that it promises: Kubernetes fills roles some seconds after a cluster's start.
//!
//! After a revocation, what its holder may have left behind is told. Nothing here decides whether a kubeconfig is revoked, but for those
//! from before each had an authority of its own: their binding is deleted.

use std::collections::{BTreeMap, BTreeSet};

use migrations::{Kubeconfig, StoreError};
use serde_json::Value;
use tenant_controlplane::addon::{Aggregate, aggregate, kubeconfig_binding_name};
use tenant_controlplane::id::{ClusterId, KubeconfigId};
use tenant_controlplane::pki::kubeconfig_user_name;
use tenant_controlplane::status::AccessRole;
use tenant_controlplane::text::{LONGEST, printable, printable_within};

use crate::context::Context;
use crate::error::ReconcileError;
use crate::host::bindings::RBAC;
use crate::host::{ApiError, Kubernetes, Meta, ObjectKey};

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

/// Notes for each revoked kubeconfig what its holder may have left inside the cluster: objects are listed once for all of them. It is a
/// courtesy: that a tenant does not answer is reported, and it is asked again at the next visit.
///
/// # Errors
/// [`ReconcileError`] of the store.
pub async fn list_left_behind(ctx: &Context, cluster: ClusterId, api: &dyn Kubernetes) -> Result<(), ReconcileError> {
    let rows = ctx.store.kubeconfigs().unlisted(cluster).await?;
    if rows.is_empty() {
        return Ok(());
    }
    let found = ctx.with_timeout(async { Ok(Found::list(&rows, api).await) }).await;
    let found = found.unwrap_or_else(|late: ReconcileError| Found::not_listed(&late));
    for row in &rows {
        let text = found.left_behind(row).map(|text| printable(&text));
        let noted = match found.is_complete(row) {
            true => ctx.store.kubeconfigs().mark_listed(row.id, text.as_deref()).await,
            false => ctx.store.kubeconfigs().set_left_behind(row.id, text.as_deref()).await,
        };
        // One that is gone for its age needs no note.
        match noted {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What is inside a tenant; or why it is not known, for people.
struct Found {
    /// By user.
    bindings: Result<BTreeMap<String, Vec<ObjectKey>>, String>,
    tokens: Result<Vec<Meta>, String>,
}

impl Found {
    async fn list(rows: &[Kubeconfig], api: &dyn Kubernetes) -> Self {
        let users = rows.iter().map(|row| kubeconfig_user_name(row.id)).collect();
        let bindings = api.bindings_of(&users).await.map_err(|error| error.to_string());
        let tokens = match rows.iter().any(could_make_tokens) {
            true => api.token_secrets().await.map_err(|error| error.to_string()),
            false => Ok(Vec::new()),
        };
        Self { bindings, tokens }
    }

    fn not_listed(why: &ReconcileError) -> Self {
        Self { bindings: Err(why.to_string()), tokens: Err(why.to_string()) }
    }

    fn is_complete(&self, row: &Kubeconfig) -> bool {
        self.bindings.is_ok() && (self.tokens.is_ok() || !could_make_tokens(row))
    }

    /// What is bound to its user, which would work again if that name ever came back; and, where its holder could make them, tokens of
    /// service accounts that were made while it worked: by whom Kubernetes does not record.
    fn left_behind(&self, row: &Kubeconfig) -> Option<String> {
        let bindings = self.bindings.as_ref().map(|all| {
            let user = kubeconfig_user_name(row.id);
            all.get(&user).into_iter().flatten().cloned().collect()
        });
        let bindings = named(bindings, "Role bindings that still name its user", "Role bindings of its user");
        let tokens = could_make_tokens(row).then(|| {
            let what = "Tokens of service accounts made since it was issued";
            named(self.tokens_since(row), what, "Tokens of service accounts")
        });
        // Tokens work now; a binding only if the name ever came back.
        let texts: Vec<String> = tokens.flatten().into_iter().chain(bindings).collect();
        (!texts.is_empty()).then(|| texts.join(" "))
    }

    /// Those that do not end by themselves.
    fn tokens_since(&self, row: &Kubeconfig) -> Result<Vec<ObjectKey>, &String> {
        let since = |secret: &&Meta| secret.created_at >= row.created_at.unix_timestamp();
        Ok(self.tokens.as_ref()?.iter().filter(since).map(|secret| secret.key("v1", "Secret")).collect())
    }
}

/// Whether its holder could make tokens of service accounts that do not end.
fn could_make_tokens(row: &Kubeconfig) -> bool {
    match row.role {
        AccessRole::Admin => true,
        AccessRole::Edit | AccessRole::View => false,
    }
}

/// What was found of a kind, within [`KIND`] characters: the number first, then as many names as there is room for, so that no name takes
/// another kind's place.
fn named(found: Result<Vec<ObjectKey>, &String>, what: &str, kind: &str) -> Option<String> {
    let found = match found {
        Ok(found) if found.is_empty() => return None,
        Ok(found) => found,
        Err(why) => {
            let text = format!("{kind} are not listed yet, which is tried again. {}", why.trim_end_matches('.'));
            return Some(format!("{}.", printable_within(&text, KIND - 1)));
        }
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
    fn what_was_not_listed_is_asked_for_again() {
        let row = |role| Kubeconfig {
            id: KubeconfigId::from_uuid(uuid::Uuid::nil()),
            cluster: ClusterId::from_uuid(uuid::Uuid::nil()),
            organization: tenant_controlplane::id::OrganizationId::from_uuid(uuid::Uuid::nil()),
            name: "k".to_owned(),
            role,
            kind: migrations::KubeconfigKind::File,
            serial: None,
            expires_at: time::OffsetDateTime::UNIX_EPOCH,
            revoked_at: None,
            bound: false,
            created_by: "system".to_owned(),
            created_at: time::OffsetDateTime::UNIX_EPOCH,
            authority: None,
            refused_at: None,
            left_behind: None,
        };
        let (admin, edit) = (row(AccessRole::Admin), row(AccessRole::Edit));
        let late = ReconcileError::cluster_api(ApiError::Slow(std::time::Duration::from_secs(5)));
        let unknown = Found::not_listed(&late);
        assert!(!unknown.is_complete(&admin) && !unknown.is_complete(&edit));
        let text = unknown.left_behind(&admin).unwrap();
        assert!(text.starts_with("Tokens of service accounts are not listed yet, which is tried again."), "{text}");
        let half = Found { bindings: Ok(BTreeMap::new()), ..unknown };
        assert!(!half.is_complete(&admin) && half.is_complete(&edit), "an editor could make none");
        assert_eq!(half.left_behind(&edit), None);
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
        assert!(named(Err(&"x".repeat(5000)), "", "Bindings").unwrap().chars().count() <= KIND);
    }
}
