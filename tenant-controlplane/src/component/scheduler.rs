//! kube-scheduler: says on which node a pod runs.

use super::{Files, component_kubeconfig, flag};
use crate::pki::{ClusterPki, LeafKind};

/// The binary's and the component's name.
pub const NAME: &str = "kube-scheduler";

/// The environment it runs with. Nobody waits for its start, so it collects early: 13 MB of its own instead of 17.
pub const ENV: &[(&str, &str)] = &[("GOGC", "50")];

/// Where a tenant's pod has [`files`].
pub(crate) const POD_FILES: &str = "/etc/kubernetes/scheduler";

/// What differs between one scheduler and another.
pub struct Settings<'a> {
    /// The directory that holds [`files`].
    pub files: &'a str,
    /// Whether there may be several.
    pub leader_elect: bool,
}

/// The flags, complete but for the binary's name.
pub fn flags(settings: &Settings<'_>) -> Vec<String> {
    vec![
        flag("kubeconfig", format_args!("{}/kubeconfig", settings.files)),
        flag("leader-elect", settings.leader_elect),
        flag("secure-port", 0),
        flag("profiling", false),
    ]
}

/// The files it reads. `api_url` is its API server, `https://127.0.0.1:6443` in a tenant's pod.
pub fn files(pki: &ClusterPki, api_url: &str) -> Files {
    let client = (pki.cert(LeafKind::Scheduler), pki.key(LeafKind::Scheduler));
    Files::new([("kubeconfig", &component_kubeconfig(api_url, &pki.serving.trust_pem(), client))])
}
