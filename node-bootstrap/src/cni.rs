//! The pods' network on this node: `ptp` (every packet is routed, so the forward hook sees pod-to-pod traffic), addresses by
//! `host-local`, host ports by `portmap`.

use serde_json::{Value, json};

use crate::spec::NodeSpec;

/// The CNI configuration list.
pub fn conflist(spec: &NodeSpec) -> Value {
    let ipam = json!({
        "type": "host-local",
        "dataDir": spec.layout.cni_leases(),
        "ranges": [[{"subnet": spec.network.pod_cidr}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    json!({
        "cniVersion": "1.0.0",
        "name": spec.network.name,
        "plugins": [
            {"type": "ptp", "ipMasq": false, "ipam": ipam},
            {"type": "portmap", "backend": "nftables", "snat": true, "capabilities": {"portMappings": true}},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::sample;

    #[test]
    fn pods_get_addresses_of_this_nodes_range_by_routing() {
        let list = conflist(&sample());
        assert_eq!(list["plugins"][0]["type"], "ptp");
        assert_eq!(list["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.3.0/24");
        assert_eq!(list["plugins"][0]["ipam"]["dataDir"], "/s/cni/leases");
        assert_eq!(list["plugins"][1]["backend"], "nftables");
    }
}
