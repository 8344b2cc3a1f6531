//! kubelet's configuration, kubeconfig and flags.

use std::path::Path;

use serde_json::{Value, json};

use crate::child::ChildSpec;
use crate::spec::{ApiServer, KeyPairFiles, NodeSpec, merge};

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
        // Absolute, and no collecting by percent: the defaults (10 and 15 of a hundred) are dozens of gigabytes on a large disk that
        // the machine shares with others, and would evict control planes that use a few hundred megabytes.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "500Mi", "imagefs.available": "500Mi",
            "nodefs.inodesFree": "2%", "imagefs.inodesFree": "2%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
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

/// The resolver file pods inherit: behind systemd-resolved's stub, the real one.
pub fn resolv_conf() -> &'static Path {
    let real = Path::new("/run/systemd/resolve/resolv.conf");
    let stub = std::fs::read_to_string("/etc/resolv.conf").is_ok_and(|text| text.contains("127.0.0.53"));
    if stub && real.exists() {
        return real;
    }
    let plain = Path::new("/etc/resolv.conf");
    if plain.exists() { plain } else { Path::new("") }
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
    ChildSpec::new("kubelet", spec, args, &[&config.to_string(), &kubeconfig])
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
    fn the_callers_wishes_are_merged_last() {
        let mut spec = sample();
        spec.kubelet_config = json!({"maxPods": 250, "clusterDNS": null});
        let config = config(&spec, false, Path::new(""));
        assert_eq!(config["maxPods"], 250);
        assert!(config.get("clusterDNS").is_none());
    }

    #[test]
    fn the_flags_and_kubeconfig_hold_no_secret() {
        let spec = sample();
        let child = child(&spec, &config(&spec, true, Path::new("")));
        assert!(child.args.contains(&"--node-labels=a=b,c=d".to_owned()));
        assert!(child.args.contains(&"--node-ip=192.0.2.7".to_owned()));
        let kubeconfig = kubeconfig(&spec.api, &spec.identities.kubelet);
        assert_eq!(kubeconfig["clusters"][0]["cluster"]["tls-server-name"], "x.node.pilothouse.internal");
        assert_eq!(kubeconfig["users"][0]["user"]["client-key"], "/s/pki/kubelet.key");
    }
}
