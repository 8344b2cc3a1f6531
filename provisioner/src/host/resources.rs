//! The kinds we apply, get, list or delete: so no discovery is needed, and an API server that has just begun to serve can be worked with.

use ::kube::core::discovery::ApiResource;
use ::kube::core::gvk::GroupVersionKind;

use super::ApiError;

/// A kind of object.
pub struct Kind {
    /// How it is addressed.
    pub resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

/// API version, kind, plural, whether namespaced.
const KINDS: &[(&str, &str, &str, bool)] = &[
    ("v1", "Namespace", "namespaces", false),
    ("v1", "Node", "nodes", false),
    ("v1", "Pod", "pods", true),
    ("v1", "PersistentVolume", "persistentvolumes", false),
    ("v1", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("v1", "Event", "events", true),
    ("v1", "Secret", "secrets", true),
    ("v1", "ConfigMap", "configmaps", true),
    ("v1", "Service", "services", true),
    ("v1", "Endpoints", "endpoints", true),
    ("v1", "ServiceAccount", "serviceaccounts", true),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", false),
    ("apps/v1", "Deployment", "deployments", true),
    ("apps/v1", "StatefulSet", "statefulsets", true),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies", false),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", false),
    ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", true),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", true),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", true),
    ("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", false),
];

/// The kind of that name.
///
/// # Errors
/// [`ApiError::Unknown`] for one that is not in the table.
pub fn kind(api_version: &str, kind: &str) -> Result<Kind, ApiError> {
    let row = KINDS.iter().find(|row| row.0 == api_version && row.1 == kind);
    let (_, _, plural, namespaced) = row.ok_or_else(|| ApiError::Unknown(format!("{api_version} {kind}")))?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Ok(Kind { resource, namespaced: *namespaced })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_addressed_as_the_api_has_them() {
        let found = kind("apps/v1", "StatefulSet").unwrap();
        assert_eq!((found.resource.group.as_str(), found.resource.plural.as_str()), ("apps", "statefulsets"));
        assert_eq!(kind("v1", "Namespace").unwrap().resource.group, "");
        assert!(matches!(kind("v1", "Gizmo"), Err(ApiError::Unknown(_))));
    }
}
