//! Taking away what an older render made and the present one does not.
//!
//! Only what we applied ourselves (field manager and label), of listed kinds, and that nothing owns; never on a list that could not be
//! had. Claims and their owners hold data and are in no list of kinds. What a newer platform made stays: this one cannot know what it is for.

use std::collections::BTreeSet;

use serde_json::Value;
use tenant_controlplane::render::{RENDERING, RENDERING_ANNOTATION};

use crate::host::{ApiError, FIELD_MANAGER, Kubernetes, ObjectKey};

/// What may be pruned where.
pub struct Scope<'a> {
    /// API version and kind.
    pub kinds: &'a [(&'a str, &'a str)],
    /// None: everywhere.
    pub namespace: Option<&'a str>,
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
        let found = api.select(api_version, kind, scope.namespace, scope.labels).await?;
        let ours = found.iter().filter(|object| is_applied_by_us(object) && !is_newer(object));
        let keys = ours.filter_map(|object| key(api_version, kind, object));
        surplus.extend(keys.filter(|key| !wanted.contains(key) && (scope.is_ours)(&key.name)));
    }
    for key in surplus {
        tracing::info!(kind = key.kind, namespace = key.namespace, name = key.name, "no longer rendered: deleting it");
        api.delete(&key).await?;
    }
    Ok(())
}

/// Whether we applied it, and no controller made it of something we applied: those copy labels.
fn is_applied_by_us(object: &Value) -> bool {
    let managers = object["metadata"]["managedFields"].as_array();
    let ours = |entry: &Value| entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply";
    managers.is_some_and(|all| all.iter().any(ours)) && object["metadata"]["ownerReferences"].is_null()
}

/// Whether it came from a rendering that this platform does not know. Before they were numbered they were older.
fn is_newer(object: &Value) -> bool {
    let number = object["metadata"]["annotations"][RENDERING_ANNOTATION].as_str();
    number.is_some_and(|number| number.parse::<u32>().is_ok_and(|number| number > RENDERING))
}

/// Objects in a list do not say their kind themselves.
fn key(api_version: &str, kind: &str, object: &Value) -> Option<ObjectKey> {
    let name = object["metadata"]["name"].as_str()?;
    Some(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => ObjectKey::namespaced(api_version, kind, namespace, name),
        None => ObjectKey::global(api_version, kind, name),
    })
}
