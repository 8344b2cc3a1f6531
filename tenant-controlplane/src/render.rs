//! From what is wanted to Kubernetes objects for the host: a pure function that cannot fail, because its input is valid by type.
//!
//! Objects are typed and written as JSON values, never as YAML text: a comma inside a flag splits a YAML flow list.
//! The same input gives the same objects, byte for byte; what must restart when a file changes carries the files' checksum.

mod network;
mod pod;
mod workload;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

pub use crate::component::apiserver::RemovedNodes;
use crate::component::{Files, apiserver, controller_manager, etcd, scheduler};
use crate::id::ClusterId;
use crate::name::ClusterName;
use crate::pki::{ClusterPki, KubeconfigAuthorities};
use crate::sni;
use crate::spec::ClusterSpec;

/// The label that says an object is ours.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The label that says whose cluster an object belongs to; its value is the cluster's id.
pub const CLUSTER_LABEL: &str = "pilothouse.dev/cluster";
/// The label that says which part of a control plane a pod is: `etcd` or `control-plane`.
pub const COMPONENT_LABEL: &str = "pilothouse.dev/component";
/// The label with the name people gave the cluster, on its namespace.
pub const NAME_LABEL: &str = "pilothouse.dev/cluster-name";
/// The annotation on pod templates with the checksum of the files they read.
pub const CHECKSUM_ANNOTATION: &str = "pilothouse.dev/config-sha256";

/// The annotation with the number of the rendering an object came from.
pub const RENDERING_ANNOTATION: &str = "pilothouse.dev/rendering";
/// Raised with every object that [`render`] or the addons make in addition: so an older platform, which does not make it, sees that it is
/// not an older one's and leaves it alone.
pub const RENDERING: u32 = 2;

/// The name of the etcd StatefulSet and Service, and the component's label.
pub const ETCD: &str = "etcd";
/// The name of the control plane's Deployment and Service, and the component's label.
pub const CONTROL_PLANE: &str = "control-plane";

/// The Secret with the authorities that vouch for the API server's clients, and with whom it refuses: the one object that changes with every
/// file kubeconfig and every removed node.
pub const CLIENT_AUTHORITIES: &str = "client-authorities";

/// The kinds of which objects in a cluster's namespace are taken away when [`render`] makes them no longer: API version and kind. One
/// that is not rendered any more stays in this list for as long as an older platform may have made it. Never one that holds data: the
/// claim, the StatefulSet that takes its claims along, the namespace.
pub const PRUNED: &[(&str, &str)] = &[
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
];

/// The priority of control planes' pods among the host's: when memory runs out there they are not the first to go.
pub(crate) const PRIORITY_CLASS: &str = "pilothouse-control-plane";
const PRIORITY: i32 = 1_000_000;
/// Which edition of the Pod Security Standards our pods were made for; without it the host's newest would decide.
const POD_SECURITY: &str = "v1.33";

/// The service account of all pods of a control plane. It has no rights and no token; it is made here, so that pods need not wait until
/// the host has made the namespace's `default`.
const SERVICE_ACCOUNT: &str = "control-plane";
/// In a tenant's pod the API server is on loopback.
const POD_API_URL: &str = "https://127.0.0.1:6443";

/// Everything that rendering depends on.
pub struct RenderInput<'a> {
    /// Whose control plane it is.
    pub cluster: ClusterId,
    /// What people call it.
    pub name: &'a ClusterName,
    /// What it should be.
    pub spec: &'a ClusterSpec,
    /// Its certificates and keys.
    pub pki: &'a ClusterPki,
    /// The user and group all its containers run as: no other cluster's.
    pub user: u32,
    /// The authorities of its living file kubeconfigs.
    pub authorities: &'a KubeconfigAuthorities,
    /// Its nodes that were removed lately.
    pub removed: &'a RemovedNodes,
    /// Where it runs.
    pub placement: &'a Placement,
}

/// What a control plane has to know about the host it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The installation's domain.
    pub domain: String,
    /// The gateway, as pods of the host reach it.
    pub gateway_ip: IpAddr,
    /// The gateway's port.
    pub gateway_port: u16,
    /// The gateway for people and machines, `address:port`.
    pub advertised: String,
    /// What signed the gateway's own certificate, PEM.
    pub platform_ca_pem: String,
    /// Where etcd's volume comes from; none is the host's default.
    pub storage_class: Option<String>,
    /// The images of the components.
    pub images: Images,
    /// Whether images may be pulled.
    pub pull_policy: PullPolicy,
    /// Whether etcd writes to the disk before it answers; `false` for tests only.
    pub fsync: bool,
    /// The address of the service [`ETCD`], read back after the foundation was applied. None: the host's DNS knows it.
    pub etcd_ip: Option<IpAddr>,
}

/// Image references. Each image's entry point is `/<component name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// kube-apiserver.
    pub apiserver: String,
    /// kube-controller-manager.
    pub controller_manager: String,
    /// kube-scheduler.
    pub scheduler: String,
    /// etcd.
    pub etcd: String,
}

/// Whether the host may pull images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// They are there, put by us.
    Never,
    /// They may be pulled when missing.
    IfNotPresent,
}

impl PullPolicy {
    /// Kubernetes' word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "Never",
            Self::IfNotPresent => "IfNotPresent",
        }
    }
}

/// Kubernetes objects in the order in which to apply them.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifests {
    /// All of them, each with `apiVersion`, `kind`, `metadata.name` and our labels.
    pub objects: Vec<Value>,
    foundation: usize,
}

impl Manifests {
    /// What can be applied before etcd's address is known: namespace, service account, etcd's service, policies, secrets and etcd's claim.
    pub fn foundation(&self) -> &[Value] {
        &self.objects[..self.foundation]
    }

    /// The pods' owners: apply them once `Placement::etcd_ip` is known. etcd comes first; it is the one that needs its claim's volume.
    pub fn workloads(&self) -> &[Value] {
        &self.objects[self.foundation..]
    }
}

/// An object as JSON. Serializing these types fails only for maps without text keys, which they do not have.
fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// The labels of every object of a cluster.
pub fn labels(cluster: ClusterId) -> BTreeMap<String, String> {
    let own = [(MANAGED_BY_LABEL, "pilothouse".to_owned()), (CLUSTER_LABEL, cluster.to_string())];
    own.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The annotations of every object.
pub(crate) fn annotations() -> BTreeMap<String, String> {
    BTreeMap::from([(RENDERING_ANNOTATION.to_owned(), RENDERING.to_string())])
}

fn labels_with(cluster: ClusterId, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let more = more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    labels(cluster).into_iter().chain(more).collect()
}

impl RenderInput<'_> {
    fn meta(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(sni::namespace(self.cluster)),
            labels: Some(labels(self.cluster)),
            annotations: Some(annotations()),
            ..ObjectMeta::default()
        }
    }

    fn component_labels(&self, component: &str) -> BTreeMap<String, String> {
        labels_with(self.cluster, &[(COMPONENT_LABEL, component)])
    }

    /// The namespace admits hardened pods only (Pod Security Standards, `restricted`): ours are.
    fn namespace(&self) -> Namespace {
        let more = [
            (NAME_LABEL, self.name.as_str()),
            ("pod-security.kubernetes.io/enforce", "restricted"),
            ("pod-security.kubernetes.io/enforce-version", POD_SECURITY),
        ];
        let metadata = ObjectMeta {
            name: Some(sni::namespace(self.cluster)),
            labels: Some(labels_with(self.cluster, &more)),
            annotations: Some(annotations()),
            ..ObjectMeta::default()
        };
        Namespace { metadata, ..Namespace::default() }
    }

    fn service_account(&self) -> ServiceAccount {
        let metadata = self.meta(SERVICE_ACCOUNT);
        ServiceAccount { metadata, automount_service_account_token: Some(false), ..ServiceAccount::default() }
    }

    fn secret(&self, name: &str, files: &Files) -> Secret {
        let data = files.iter().map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec())));
        let (metadata, type_) = (self.meta(name), Some("Opaque".to_owned()));
        Secret { metadata, type_, data: Some(data.collect()), ..Secret::default() }
    }

    fn files(&self) -> ComponentFiles {
        let placement = self.placement;
        let url = format!("https://{}:{}", sni::egress(self.cluster, &placement.domain), placement.gateway_port);
        let egress = apiserver::Egress { url: &url, ca_pem: &placement.platform_ca_pem };
        ComponentFiles {
            apiserver: apiserver::files(self.pki, Some(&egress)),
            controller_manager: controller_manager::files(self.pki, POD_API_URL),
            scheduler: scheduler::files(self.pki, POD_API_URL),
            etcd: etcd::files(self.pki),
        }
    }
}

/// The files of all components of one control plane.
struct ComponentFiles {
    apiserver: Files,
    controller_manager: Files,
    scheduler: Files,
    etcd: Files,
}

/// What all control planes share in the host; to be there before the first pod is. Nobody is pushed out for them.
pub fn shared() -> Value {
    let labels = BTreeMap::from([(MANAGED_BY_LABEL.to_owned(), "pilothouse".to_owned())]);
    value(&PriorityClass {
        metadata: ObjectMeta {
            name: Some(PRIORITY_CLASS.to_owned()),
            labels: Some(labels),
            annotations: Some(annotations()),
            ..ObjectMeta::default()
        },
        value: PRIORITY,
        preemption_policy: Some("Never".to_owned()),
        description: Some("Control planes of Pilothouse's clusters".to_owned()),
        global_default: None,
    })
}

/// The Secret [`CLIENT_AUTHORITIES`] alone. It is part of [`render`] too.
pub fn client_authorities(input: &RenderInput<'_>) -> Value {
    let dir = apiserver::POD_CLIENT_FILES;
    let files = apiserver::client_files(input.pki, input.authorities, input.removed, dir);
    value(&input.secret(CLIENT_AUTHORITIES, &files))
}

/// What a cluster's control plane looks like in the host. It cannot fail, and the same input gives the same objects.
pub fn render(input: &RenderInput<'_>) -> Manifests {
    let files = input.files();
    let mut objects = vec![value(&input.namespace()), value(&input.service_account())];
    objects.push(network::etcd_service(input));
    objects.extend(network::policies(input));
    let secrets = [
        (apiserver::NAME, &files.apiserver),
        (controller_manager::NAME, &files.controller_manager),
        (scheduler::NAME, &files.scheduler),
        (etcd::NAME, &files.etcd),
    ];
    objects.extend(secrets.map(|(name, files)| value(&input.secret(name, files))));
    objects.push(client_authorities(input));
    objects.push(value(&workload::first_claim(input)));
    let foundation = objects.len();
    objects.push(value(&workload::etcd(input, &files)));
    objects.push(value(&workload::control_plane(input, &files)));
    Manifests { objects, foundation }
}

#[cfg(test)]
mod tests;
