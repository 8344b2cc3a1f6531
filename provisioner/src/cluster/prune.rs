//! Taking away what an older render made and the present one does not.
//!
//! Only the metadata is read, of our own namespaces: a tenant puts our label on what it likes. Only what we applied ourselves (field manager and label), of listed kinds, and that nothing owns; never on a list that could not be
//! had. Claims and their owners hold data and are in no list of kinds. What a newer platform made stays: this one cannot know what it is for.

use std::collections::BTreeSet;

use serde_json::Value;
use tenant_controlplane::render::RENDERING;

use crate::host::resources::kind as kind_of;
use crate::host::{ApiError, Kubernetes, Meta, ObjectKey};

/// What may be pruned where.
pub struct Scope<'a> {
    /// API version and kind.
    pub kinds: &'a [(&'a str, &'a str)],
    /// Where namespaced kinds are looked for.
    pub namespaces: &'a [&'a str],
    /// The labels that ours carry.
    pub labels: &'a str,
    /// Which of their names are not somebody else's business.
    pub is_ours: fn(&str) -> bool,
}

/// Deletes what is not in `wanted`, which was just applied in full.
///
/// # Errors
/// [`ApiError`]; nothing was deleted unless everything could be listed.
pub async fn surplus(api: &dyn Kubernetes, scope: &Scope<'_>, wanted: &[Value]) -> Result<(), ApiError> {
    let wanted: BTreeSet<ObjectKey> = wanted.iter().map(ObjectKey::of).collect::<Result<_, _>>()?;
    let mut surplus = Vec::new();
    for (api_version, kind) in scope.kinds {
        let ours = found(api, (api_version, kind), scope).await?.into_iter().filter(is_ours);
        let keys = ours.map(|object| object.key(api_version, kind));
        surplus.extend(keys.filter(|key| !wanted.contains(key) && (scope.is_ours)(&key.name)));
    }
    for key in surplus {
        tracing::info!(kind = key.kind, namespace = key.namespace, name = key.name, "no longer rendered: deleting");
        api.delete(&key).await?;
    }
    Ok(())
}

/// What carries our labels, of one kind.
async fn found(
    api: &dyn Kubernetes,
    (api_version, kind): (&str, &str),
    scope: &Scope<'_>,
) -> Result<Vec<Meta>, ApiError> {
    if !kind_of(api_version, kind)?.namespaced {
        return api.metadata(api_version, kind, None, scope.labels).await;
    }
    let mut all = Vec::new();
    for namespace in scope.namespaces {
        all.extend(api.metadata(api_version, kind, Some(namespace), scope.labels).await?);
    }
    Ok(all)
}

/// Whether we applied it, no controller made it of something we applied (those copy labels), and it came from no rendering that this
/// platform does not know. Before they were numbered they were older.
fn is_ours(object: &Meta) -> bool {
    object.applied_by_us && !object.owned && object.rendering.is_none_or(|number| number <= RENDERING)
}
