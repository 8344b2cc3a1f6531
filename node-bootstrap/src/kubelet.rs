//! kubelet's configuration, kubeconfig and flags.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use node_linux::files::{self, FileError};
use node_linux::resolver;
use serde_json::{Value, json};

use crate::child::ChildSpec;
use crate::spec::{ApiServer, KeyPairFiles, Layout, NodeSpec, merge};

/// The program.
pub const NAME: &str = "kubelet";
/// Every node has this address on its loopback, for the API server; on port 53 nothing listens there.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));
/// Where kubelet says how it does; on the node's own loopback.
pub const HEALTHZ: &str = "127.0.0.1:10248";

/// A kubeconfig that names files, so that renewed certificates are picked up without a restart. JSON is YAML.
pub fn kubeconfig(api: &ApiServer, user: &KeyPairFiles) -> Value {
    let mut cluster = json!({"server": api.url, "certificate-authority": api.ca_file});
    if let Some(name) = &api.tls_server_name {
        cluster["tls-server-name"] = json!(name);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "user", "user": {"client-certificate": user.cert_file, "client-key": user.key_file}}],
        "contexts": [{"name": "node", "context": {"cluster": "cluster", "user": "user"}}],
        "current-context": "node",
    })
}

/// The `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1). `cgroup_v1`: limits live in version 1 hierarchies.
pub fn config(spec: &NodeSpec, cgroup_v1: bool, resolv_conf: &Path) -> Value {
    let layout = &spec.layout;
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": "2m0s"},
            "x509": {"clientCAFile": spec.api.client_ca_file},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": spec.identities.serving.cert_file,
        "tlsPrivateKeyFile": spec.identities.serving.key_file,
        "tlsMinVersion": "VersionTLS12",
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "registerNode": true,
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "containerRuntimeEndpoint": format!("unix://{}", layout.containerd_socket().display()),
        "resolvConf": resolv_conf,
        "clusterDomain": "cluster.local",
        "podLogsDir": layout.pod_logs,
        "volumePluginDir": layout.kubelet.join("volume-plugins"),
        "serializeImagePulls": false,
        "maxParallelImagePulls": 4,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "rotateCertificates": false,
        "serverTLSBootstrap": false,
        // A change is reported at once all the same; these are for the quiet times.
        "nodeStatusUpdateFrequency": "10s",
        "nodeStatusReportFrequency": "1m0s",
        "shutdownGracePeriod": "0s",
    });
    if cgroup_v1 || spec.cgroup_root != "/" {
        config["cgroupRoot"] = json!(spec.cgroup_root);
    }
    if let Some(dns) = spec.network.dns {
        config["clusterDNS"] = json!([dns]);
    }
    merge(&mut config, &spec.kubelet_config);
    config
}

/// What a machine of its own keeps from pods: for kubelet, containerd, kube-proxy and the agent, and for its system. Otherwise pods
/// take all memory, and the kernel ends one of these.
pub fn reserved() -> Value {
    json!({"kubeReserved": {"cpu": "100m", "memory": "192Mi"}, "systemReserved": {"cpu": "50m", "memory": "96Mi"}})
}

/// What kubelet needs in a user namespace: it goes on where kernel values and the kernel's log are not its own (KEP-2033).
pub fn in_user_namespace() -> Value {
    json!({"featureGates": {"KubeletInUserNamespace": true}})
}

/// Bounds for a machine whose disk is others' too. Absolute, and no collecting by percent: kubelet's defaults (10 and 15 of a hundred)
/// are dozens of gigabytes on a large disk, and would evict pods that use a few hundred megabytes.
pub fn sharing() -> Value {
    json!({
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "500Mi", "imagefs.available": "500Mi",
            "nodefs.inodesFree": "2%", "imagefs.inodesFree": "2%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    })
}

/// What pods are told of name servers begins with this: the machine's own file, or behind a stub on loopback (systemd-resolved's) the
/// real one.
pub fn resolver(root: &Path) -> String {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
    let plain = read("etc/resolv.conf");
    if resolver::is_usable(&plain) {
        return plain;
    }
    let real = read("run/systemd/resolve/resolv.conf");
    if resolver::is_usable(&real) { real } else { plain }
}

/// Writes the resolver file that pods inherit and says where it is. Where the machine names no server that a pod can ask, it names an
/// address of this node at which nothing answers: names outside of the cluster are then refused at once, and CoreDNS, which ends without
/// a server and asks itself for ever by one on its own loopback, goes on with the names inside.
///
/// # Errors
/// [`FileError`].
pub fn place_resolver(root: &Path, layout: &Layout) -> Result<PathBuf, FileError> {
    let path = layout.etc.join("resolv.conf");
    let text = resolver::for_pods(&resolver(root), NOBODY);
    files::write_if_changed(&path, text.as_bytes(), 0o644).map(|_| path)
}

/// The kubelet process.
pub fn child(spec: &NodeSpec, config: &Value) -> ChildSpec {
    let layout = &spec.layout;
    let labels: Vec<String> = spec.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut args = vec![
        format!("--config={}", layout.etc.join("kubelet.json").display()),
        format!("--kubeconfig={}", layout.etc.join("kubelet.kubeconfig").display()),
        format!("--root-dir={}", layout.kubelet.display()),
        format!("--cert-dir={}", layout.kubelet.join("pki").display()),
        format!("--hostname-override={}", spec.node_name),
        format!("--node-ip={}", spec.node_ip),
    ];
    if !labels.is_empty() {
        args.push(format!("--node-labels={}", labels.join(",")));
    }
    args.extend(spec.kubelet_args.iter().cloned());
    let kubeconfig = kubeconfig(&spec.api, &spec.identities.kubelet).to_string();
    ChildSpec::new(NAME, spec, args, &[&config.to_string(), &kubeconfig, &spec.registration.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::sample;

    #[test]
    fn the_configuration_closes_every_open_door() {
        let config = config(&sample(), true, Path::new("/etc/resolv.conf"));
        assert_eq!(config["authentication"]["anonymous"]["enabled"], false);
        assert_eq!(config["authorization"]["mode"], "Webhook");
        assert_eq!(config["readOnlyPort"], 0);
        assert_eq!(config["failCgroupV1"], false);
        assert_eq!(config["cgroupRoot"], "/pilothouse-t/node");
        assert_eq!(config["clusterDNS"][0], "10.96.0.10");
        assert_eq!(config["containerRuntimeEndpoint"], "unix:///r/containerd.sock");
    }

    #[test]
    fn pods_get_a_resolver_that_coredns_can_live_with() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::below(&dir.path().join("node"), &dir.path().join("run"));
        let (plain, real) = (dir.path().join("etc/resolv.conf"), dir.path().join("run/systemd/resolve/resolv.conf"));
        for dir in [plain.parent().unwrap(), real.parent().unwrap(), &layout.etc] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let placed = || std::fs::read_to_string(place_resolver(dir.path(), &layout).unwrap()).unwrap();
        assert_eq!(placed(), "nameserver 198.18.0.1\n", "no file at all");
        std::fs::write(&plain, "search example.org\n").unwrap();
        assert_eq!(placed(), "search example.org\nnameserver 198.18.0.1\n");
        std::fs::write(&plain, "nameserver 127.0.0.53\n").unwrap();
        std::fs::write(&real, "nameserver 192.0.2.53\n").unwrap();
        assert_eq!(placed(), "nameserver 192.0.2.53\n");
        std::fs::write(&plain, "nameserver 192.0.2.54\n").unwrap();
        assert_eq!(placed(), "nameserver 192.0.2.54\n");
    }

    #[test]
    fn disks_are_collected_by_kubelets_own_measure_unless_shared() {
        let mut spec = sample();
        let own = config(&spec, false, Path::new(""));
        assert!(own.get("evictionHard").is_none() && own.get("imageGCHighThresholdPercent").is_none());
        spec.kubelet_config = sharing();
        assert_eq!(config(&spec, false, Path::new(""))["imageGCHighThresholdPercent"], 100);
    }

    #[test]
    fn the_callers_wishes_are_merged_last() {
        let mut spec = sample();
        spec.kubelet_config = json!({"maxPods": 250, "clusterDNS": null});
        let config = config(&spec, false, Path::new(""));
        assert_eq!(config["maxPods"], 250);
        assert!(config.get("clusterDNS").is_none());
    }

    #[test]
    fn the_order_to_register_starts_kubelet_anew_and_nothing_else() {
        let (spec, config) = (sample(), json!({}));
        let ordered = NodeSpec { registration: 1, ..spec.clone() };
        let (before, after) = (child(&spec, &config), child(&ordered, &config));
        assert_ne!(before.digest, after.digest);
        assert_eq!(before, ChildSpec { digest: before.digest.clone(), ..after });
        let proxy = |spec| crate::kube_proxy::child(spec, &config);
        assert_eq!(proxy(&spec), proxy(&ordered));
    }

    #[test]
    fn the_flags_and_kubeconfig_hold_no_secret() {
        let spec = sample();
        let child = child(&spec, &config(&spec, true, Path::new("")));
        assert!(child.args.contains(&"--node-labels=a=b,c=d".to_owned()));
        assert!(child.args.contains(&"--node-ip=192.0.2.7".to_owned()));
        let kubeconfig = kubeconfig(&spec.api, &spec.identities.kubelet);
        assert_eq!(kubeconfig["clusters"][0]["cluster"]["tls-server-name"], "x.api.pilothouse.internal");
        assert_eq!(kubeconfig["users"][0]["user"]["client-key"], "/s/pki/kubelet.key");
    }
}
