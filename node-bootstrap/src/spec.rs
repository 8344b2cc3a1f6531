//! One node, fully decided: what the runtime needs to know, whichever way the machine came in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Paths;

/// Where a node's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Programs, by their plain names.
    pub bin: PathBuf,
    /// Parts by SHA-256.
    pub parts: PathBuf,
    /// containerd's persistent directory.
    pub containerd: PathBuf,
    /// Sockets, containerd's state, pid files, markers.
    pub run: PathBuf,
    /// kubelet's root directory.
    pub kubelet: PathBuf,
    /// CNI: `net.d` and host-local's leases.
    pub cni: PathBuf,
    /// Configurations and kubeconfigs.
    pub etc: PathBuf,
    /// The children's logs.
    pub logs: PathBuf,
    /// The pods' logs.
    pub pod_logs: PathBuf,
}

impl Layout {
    /// The layout of a joined machine.
    pub fn joined(paths: &Paths) -> Self {
        let state = paths.state();
        Self {
            bin: paths.bin(),
            parts: state.join("parts"),
            containerd: state.join("containerd"),
            run: paths.run(),
            kubelet: state.join("kubelet"),
            cni: state.join("cni"),
            etc: state.join("etc"),
            logs: paths.logs(),
            pod_logs: paths.at("/var/log/pods"),
        }
    }

    /// Everything below one directory (and one for what need not survive a reboot).
    pub fn below(root: &Path, run: &Path) -> Self {
        Self {
            bin: root.join("bin"),
            parts: root.join("parts"),
            containerd: root.join("containerd"),
            run: run.to_owned(),
            kubelet: root.join("kubelet"),
            cni: root.join("cni"),
            etc: root.join("etc"),
            logs: root.join("logs"),
            pod_logs: root.join("logs/pods"),
        }
    }

    /// Every directory that must exist before anything starts.
    pub fn dirs(&self) -> Vec<PathBuf> {
        let fixed =
            [&self.bin, &self.parts, &self.containerd, &self.run, &self.kubelet, &self.etc, &self.logs, &self.pod_logs];
        let mut dirs: Vec<PathBuf> = fixed.into_iter().cloned().collect();
        dirs.extend([self.pids(), self.cni_conf(), self.cni_leases(), self.kubelet.join("volume-plugins")]);
        dirs
    }

    /// containerd's socket.
    pub fn containerd_socket(&self) -> PathBuf {
        self.run.join("containerd.sock")
    }

    /// The directory of CNI configurations.
    pub fn cni_conf(&self) -> PathBuf {
        self.cni.join("net.d")
    }

    /// Where host-local keeps its leases.
    pub fn cni_leases(&self) -> PathBuf {
        self.cni.join("leases")
    }

    /// Where pid files lie.
    pub fn pids(&self) -> PathBuf {
        self.run.join("pids")
    }

    /// A program of the node.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// A certificate and its key, as files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPairFiles {
    /// The certificate chain, PEM.
    pub cert_file: PathBuf,
    /// The private key, PEM.
    pub key_file: PathBuf,
}

/// An image to import before anybody asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The part's name.
    pub name: String,
    /// The reference under which pods name it.
    pub reference: String,
    /// The archive.
    pub archive: PathBuf,
    /// The archive's SHA-256: another one under the same reference is imported again.
    pub sha256: String,
}

/// The three identities of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identities {
    /// kubelet as a client of the API server.
    pub kubelet: KeyPairFiles,
    /// kube-proxy as a client of the API server.
    pub proxy: KeyPairFiles,
    /// kubelet as a server.
    pub serving: KeyPairFiles,
}

/// How the node finds and trusts its API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServer {
    /// `https://…`.
    pub url: String,
    /// The name in its certificate, when the URL's host is not one.
    pub tls_server_name: Option<String>,
    /// The CA that signs it.
    pub ca_file: PathBuf,
    /// The CA whose clients kubelet trusts.
    pub client_ca_file: PathBuf,
}

/// The node's place in the cluster's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// This node's own pods.
    pub pod_cidr: Ipv4Net,
    /// All pods of the cluster.
    pub cluster_pod_cidr: Ipv4Net,
    /// All services of the cluster.
    pub service_cidr: Ipv4Net,
    /// The cluster's DNS service, when it has one.
    pub dns: Option<IpAddr>,
    /// Give pods' packets the node's address when they leave the cluster.
    pub masquerade: bool,
    /// The CNI network's name.
    pub name: String,
    /// Where pods find the API server on the node itself, when they do.
    pub api: Option<SocketAddr>,
}

/// The first address of a node's pod range: the node's own. Unique in the cluster, whatever network the machine is in, and on
/// this machine already for its pods, whose gateway it is.
pub fn node_address(pod_cidr: Ipv4Net) -> Ipv4Addr {
    pod_cidr.hosts().next().unwrap_or(pod_cidr.addr())
}

/// One node, fully decided.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSpec {
    /// Where its files lie.
    pub layout: Layout,
    /// The group that holds `kubepods`, `/` when it is the machine's own.
    pub cgroup_root: String,
    /// The group that holds the agent's children.
    pub services_cgroup: String,
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: IpAddr,
    /// Its API server.
    pub api: ApiServer,
    /// Its certificates.
    pub identities: Identities,
    /// Its place in the network.
    pub network: Network,
    /// Node labels.
    pub labels: BTreeMap<String, String>,
    /// The sandbox (pause) image's reference.
    pub sandbox_image: String,
    /// Images to import.
    pub images: Vec<Image>,
    /// Changes what would be started without changing its text: the programs' checksums.
    pub programs_digest: String,
    /// Merged over kubelet's configuration.
    pub kubelet_config: Value,
    /// Merged over kube-proxy's configuration.
    pub kube_proxy_config: Value,
    /// Extra kubelet flags.
    pub kubelet_args: Vec<String>,
    /// Changes when kubelet is to register its node anew, which it does only when it starts.
    pub registration: u64,
    /// The HTTP proxy by which containerd reaches registries, as environment variables.
    pub proxy: Vec<(String, String)>,
}

impl NodeSpec {
    /// The group that holds every pod.
    pub fn pods_cgroup(&self) -> String {
        format!("{}/kubepods", self.cgroup_root.trim_end_matches('/'))
    }
}

/// Merges `patch` into `target` as RFC 7386 says: objects member by member, null removes, anything else replaces.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(members) = target else { return };
    for (key, change) in changes {
        match change {
            Value::Null => drop(members.remove(key)),
            change => merge(members.entry(key.clone()).or_insert(Value::Null), change),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A node as the tests of the configuration texts want it.
    pub(crate) fn sample() -> NodeSpec {
        let files = |name: &str| KeyPairFiles {
            cert_file: format!("/s/pki/{name}.crt").into(),
            key_file: format!("/s/pki/{name}.key").into(),
        };
        NodeSpec {
            layout: Layout::below(Path::new("/s"), Path::new("/r")),
            cgroup_root: "/pilothouse-t/node".into(),
            services_cgroup: "/pilothouse-t/node/services".into(),
            node_name: "n1".into(),
            node_ip: "192.0.2.7".parse().unwrap(),
            api: ApiServer {
                url: "https://192.0.2.1:6443".into(),
                tls_server_name: Some("x.api.pilothouse.internal".into()),
                ca_file: "/s/etc/api-ca.crt".into(),
                client_ca_file: "/s/etc/client-ca.crt".into(),
            },
            identities: Identities { kubelet: files("kubelet"), proxy: files("proxy"), serving: files("serving") },
            network: Network {
                pod_cidr: "10.244.3.0/24".parse().unwrap(),
                cluster_pod_cidr: "10.244.0.0/16".parse().unwrap(),
                service_cidr: "10.96.0.0/16".parse().unwrap(),
                dns: "10.96.0.10".parse().ok(),
                masquerade: true,
                name: "pilothouse".into(),
                api: None,
            },
            labels: BTreeMap::from([("a".into(), "b".into()), ("c".into(), "d".into())]),
            sandbox_image: "pilothouse.internal/pause:3.10".into(),
            images: Vec::new(),
            programs_digest: "0".into(),
            kubelet_config: json!({}),
            kube_proxy_config: json!({}),
            kubelet_args: Vec::new(),
            registration: 0,
            proxy: Vec::new(),
        }
    }

    #[test]
    fn a_merge_patch_adds_replaces_and_removes() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "d": [1], "e": 1});
        merge(&mut target, &json!({"a": {"b": null, "x": 3}, "d": [2], "e": {"f": 1}}));
        assert_eq!(target, json!({"a": {"c": 2, "x": 3}, "d": [2], "e": {"f": 1}}));
    }

    #[test]
    fn pods_live_below_the_group_root() {
        let mut spec = sample();
        assert_eq!(spec.pods_cgroup(), "/pilothouse-t/node/kubepods");
        spec.cgroup_root = "/".into();
        assert_eq!(spec.pods_cgroup(), "/kubepods");
    }
}
