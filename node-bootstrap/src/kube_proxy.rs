//! kube-proxy's configuration: nftables, and hands off the conntrack sysctls (which a container may not write).

use serde_json::{Value, json};

use crate::child::ChildSpec;
use crate::kubelet::kubeconfig;
use crate::spec::{NodeSpec, merge};

/// The program.
pub const NAME: &str = "kube-proxy";

/// The `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1).
pub fn config(spec: &NodeSpec) -> Value {
    let mut config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": spec.layout.etc.join("kube-proxy.kubeconfig")},
        "hostnameOverride": spec.node_name,
        "clusterCIDR": spec.network.cluster_pod_cidr,
        "detectLocalMode": "ClusterCIDR",
        "bindAddress": "0.0.0.0",
        "healthzBindAddress": "0.0.0.0:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        // A new service answers a fifth of a second after it exists; the default waits a second.
        "nftables": {"minSyncPeriod": "200ms", "syncPeriod": "30s"},
    });
    merge(&mut config, &spec.kube_proxy_config);
    config
}

/// The kube-proxy process.
pub fn child(spec: &NodeSpec, config: &Value) -> ChildSpec {
    let args = vec![format!("--config={}", spec.layout.etc.join("kube-proxy.json").display())];
    let kubeconfig = kubeconfig(&spec.api, &spec.identities.proxy).to_string();
    ChildSpec::new(NAME, spec, args, &[&config.to_string(), &kubeconfig])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::sample;

    #[test]
    fn it_uses_nftables_and_leaves_conntrack_alone() {
        let config = config(&sample());
        assert_eq!(config["mode"], "nftables");
        assert_eq!(config["conntrack"]["maxPerCore"], 0);
        assert_eq!(config["conntrack"]["min"], 0);
        assert_eq!(config["clusterCIDR"], "10.244.0.0/16");
    }
}
