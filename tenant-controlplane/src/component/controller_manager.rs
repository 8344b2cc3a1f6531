//! kube-controller-manager: the loops that make pods of deployments, and so on.
//!
//! It signs no certificates: kubelets' are the platform's, and a signer inside would be a way around revocation.

use super::{Files, component_kubeconfig, flag};
use crate::pki::{ClusterPki, LeafKind};

/// The binary's and the component's name.
pub const NAME: &str = "kube-controller-manager";

/// The environment it runs with. Nobody waits for its start, so it collects early: 36 MB of its own instead of 46.
pub const ENV: &[(&str, &str)] = &[("GOGC", "50")];

/// Where a tenant's pod has [`files`].
pub(crate) const POD_FILES: &str = "/etc/kubernetes/controller-manager";

/// Requests a second, once [`API_BURST`] are spent. The API server shares itself out fairly (KEP-1040), so this need not be small.
const API_QPS: u32 = 100;
/// Requests at once. Starting asks some 150 times: an account and a token for each controller. At Kubernetes' own 20 a second and 30 at
/// once that takes over four seconds, in which no role is aggregated: `view` and `edit` let nobody do anything.
const API_BURST: u32 = 200;

/// What differs between one controller manager and another.
pub struct Settings<'a> {
    /// The directory that holds [`files`].
    pub files: &'a str,
    /// A directory that exists and may be written; it looks there for volume plug-ins and finds none.
    pub scratch: &'a str,
    /// Whether there may be several. One alone starts faster without asking; for the seconds of a roll-over there are two then, which
    /// controllers bear: they are level-triggered and every write is checked against the version that was read.
    pub leader_elect: bool,
}

/// The flags, complete but for the binary's name.
pub fn flags(settings: &Settings<'_>) -> Vec<String> {
    let (files, scratch) = (settings.files, settings.scratch);
    vec![
        flag("kubeconfig", format_args!("{files}/kubeconfig")),
        flag("service-account-private-key-file", format_args!("{files}/service-account.key")),
        flag("root-ca-file", format_args!("{files}/root-ca.crt")),
        flag("use-service-account-credentials", true),
        flag(
            "controllers",
            "*,-certificatesigningrequest-signing-controller,-certificatesigningrequest-approving-controller",
        ),
        flag("allocate-node-cidrs", false),
        flag("configure-cloud-routes", false),
        flag("flex-volume-plugin-dir", format_args!("{scratch}/volume-plugins")),
        flag("leader-elect", settings.leader_elect),
        flag("kube-api-qps", API_QPS),
        flag("kube-api-burst", API_BURST),
        flag("secure-port", 0),
        flag("profiling", false),
    ]
}

/// The files it reads. `api_url` is its API server, `https://127.0.0.1:6443` in a tenant's pod.
pub fn files(pki: &ClusterPki, api_url: &str) -> Files {
    let ca = pki.serving.trust_pem();
    let client = (pki.cert(LeafKind::ControllerManager), pki.key(LeafKind::ControllerManager));
    Files::new([
        ("kubeconfig", &component_kubeconfig(api_url, &ca, client)),
        ("service-account.key", &pki.sa_key_pem),
        ("root-ca.crt", &ca),
    ])
}
