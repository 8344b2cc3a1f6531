//! Who may reach whom in the host: etcd's service, and policies that forbid everything but what a control plane needs.
//!
//! The embedded host has no NetworkPolicy engine; there the platform keeps the same rules as nftables. Hosts with an engine keep these.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{CONTROL_PLANE, ETCD, RenderInput, value};
use crate::component::etcd::CLIENT_PORT;
use crate::spec::API_PORT;

/// etcd's service publishes its pod before it is ready, because a client that waits for it costs less than one that was refused. The API
/// server has none: the gateway dials pods, and a service costs the host some ten calls and every node a round of its packet filter.
pub(super) fn etcd_service(input: &RenderInput<'_>) -> Value {
    let port = ServicePort {
        name: Some("client".to_owned()),
        port: i32::from(CLIENT_PORT),
        target_port: Some(IntOrString::Int(i32::from(CLIENT_PORT))),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        selector: Some(input.component_labels(ETCD)),
        ports: Some(vec![port]),
        publish_not_ready_addresses: Some(true),
        ..ServiceSpec::default()
    };
    value(&Service { metadata: input.meta(ETCD), spec: Some(spec), ..Service::default() })
}

/// Deny all, then: anybody may reach the API server; it may reach its own etcd, the gateway and the host's cluster DNS, and with that
/// nobody else's port 53; etcd reaches nobody.
pub(super) fn policies(input: &RenderInput<'_>) -> [Value; 3] {
    let etcd_in = ingress(Some(component_peer(input, CONTROL_PLANE)), CLIENT_PORT);
    let api_out = vec![
        egress(Some(component_peer(input, ETCD)), &[("TCP", CLIENT_PORT)]),
        egress(Some(gateway_peer(input)), &[("TCP", input.placement.gateway_port)]),
        egress(Some(dns_peer()), &[("UDP", 53), ("TCP", 53)]),
    ];
    [
        policy(input, ("default-deny", LabelSelector::default()), vec![], vec![]),
        policy(input, (ETCD, component(input, ETCD)), vec![etcd_in], vec![]),
        policy(input, (CONTROL_PLANE, component(input, CONTROL_PLANE)), vec![ingress(None, API_PORT)], api_out),
    ]
}

fn policy(
    input: &RenderInput<'_>,
    (name, pods): (&str, LabelSelector),
    ingress: Vec<NetworkPolicyIngressRule>,
    egress: Vec<NetworkPolicyEgressRule>,
) -> Value {
    let spec = NetworkPolicySpec {
        pod_selector: Some(pods),
        policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
        ingress: Some(ingress).filter(|rules| !rules.is_empty()),
        egress: Some(egress).filter(|rules| !rules.is_empty()),
    };
    value(&NetworkPolicy { metadata: input.meta(name), spec: Some(spec) })
}

fn component(input: &RenderInput<'_>, component: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(input.component_labels(component)), match_expressions: None }
}

fn component_peer(input: &RenderInput<'_>, name: &str) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(component(input, name)), ..NetworkPolicyPeer::default() }
}

/// Cluster DNS goes by this label everywhere.
fn dns_peer() -> NetworkPolicyPeer {
    let only = |name: &str, value: &str| LabelSelector {
        match_labels: Some([(name.to_owned(), value.to_owned())].into()),
        match_expressions: None,
    };
    NetworkPolicyPeer {
        namespace_selector: Some(only("kubernetes.io/metadata.name", "kube-system")),
        pod_selector: Some(only("k8s-app", "kube-dns")),
        ip_block: None,
    }
}

fn gateway_peer(input: &RenderInput<'_>) -> NetworkPolicyPeer {
    let address = input.placement.gateway_ip;
    let cidr = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
    NetworkPolicyPeer { ip_block: Some(IPBlock { cidr, except: None }), ..NetworkPolicyPeer::default() }
}

fn port(protocol: &str, port: u16) -> NetworkPolicyPort {
    let number = IntOrString::Int(i32::from(port));
    NetworkPolicyPort { port: Some(number), protocol: Some(protocol.to_owned()), end_port: None }
}

fn ingress(from: Option<NetworkPolicyPeer>, to: u16) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { from: from.map(|peer| vec![peer]), ports: Some(vec![port("TCP", to)]) }
}

fn egress(to: Option<NetworkPolicyPeer>, ports: &[(&str, u16)]) -> NetworkPolicyEgressRule {
    let ports = ports.iter().map(|(protocol, number)| port(protocol, *number)).collect();
    NetworkPolicyEgressRule { to: to.map(|peer| vec![peer]), ports: Some(ports) }
}
