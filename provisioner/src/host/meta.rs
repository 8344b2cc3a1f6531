//! What is kept of an object of which only the metadata was asked for: a few words, whatever its owner wrote into it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tenant_controlplane::render::RENDERING_ANNOTATION;

use super::{FIELD_MANAGER, ObjectKey};

/// The annotation of a pod that only its kubelet knows.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// An object's metadata, as far as decisions are made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// None for cluster-wide kinds.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// When it was made, Unix time in seconds, which is as exact as Kubernetes keeps it; 0 where that is not known.
    pub created_at: i64,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether we applied it.
    pub applied_by_us: bool,
    /// Whether anything owns it.
    pub owned: bool,
    /// The kind of the controller that owns it.
    pub controller: Option<String>,
    /// The number of the rendering it came from.
    pub rendering: Option<u32>,
    /// Whether it is the mirror of a static pod.
    pub mirror: bool,
}

impl Meta {
    /// What is kept of `metadata`.
    pub fn of(metadata: ObjectMeta) -> Self {
        let owners = metadata.owner_references.unwrap_or_default();
        let annotations = metadata.annotations.unwrap_or_default();
        let mut managers = metadata.managed_fields.iter().flatten();
        let is_ours = |manager: Option<&str>, operation: Option<&str>| {
            manager == Some(FIELD_MANAGER) && operation == Some("Apply")
        };
        Self {
            applied_by_us: managers.any(|entry| is_ours(entry.manager.as_deref(), entry.operation.as_deref())),
            owned: !owners.is_empty(),
            controller: owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.kind),
            rendering: annotations.get(RENDERING_ANNOTATION).and_then(|number| number.parse().ok()),
            mirror: annotations.contains_key(MIRROR),
            created_at: metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
            terminating: metadata.deletion_timestamp.is_some(),
            namespace: metadata.namespace,
            name: metadata.name.unwrap_or_default(),
        }
    }

    /// Where it is; objects in a list do not say their kind themselves.
    pub fn key(&self, api_version: &str, kind: &str) -> ObjectKey {
        ObjectKey { namespace: self.namespace.clone(), ..ObjectKey::global(api_version, kind, &self.name) }
    }
}
