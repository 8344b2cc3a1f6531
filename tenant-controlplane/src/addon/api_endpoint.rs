//! Where the service `kubernetes` leads: to the address each node's agent answers on.
//!
//! The API server makes the service itself, and with `--endpoint-reconciler-type=none` leaves its endpoints to us. Both kinds are written,
//! as it would: old clients read Endpoints, kube-proxy the slice. The label keeps the controller manager from mirroring one to the other.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::{labels, namespaced, value};
use crate::spec::{API_PORT, NODE_LOCAL_API};

const NAME: &str = "kubernetes";

fn meta(label: (&str, &str)) -> ObjectMeta {
    ObjectMeta { labels: Some(labels(&[label])), ..namespaced("default", NAME) }
}

pub(super) fn objects() -> [Value; 2] {
    [value(&endpoints()), value(&slice())]
}

fn endpoints() -> Endpoints {
    let address = EndpointAddress { ip: NODE_LOCAL_API.to_string(), ..EndpointAddress::default() };
    let port = EndpointPort {
        name: Some("https".to_owned()),
        port: i32::from(API_PORT),
        protocol: Some("TCP".to_owned()),
        app_protocol: None,
    };
    let subset =
        EndpointSubset { addresses: Some(vec![address]), ports: Some(vec![port]), ..EndpointSubset::default() };
    let metadata = meta(("endpointslice.kubernetes.io/skip-mirror", "true"));
    Endpoints { metadata, subsets: Some(vec![subset]) }
}

fn slice() -> EndpointSlice {
    let endpoint = Endpoint {
        addresses: vec![NODE_LOCAL_API.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    let port = SlicePort {
        name: Some("https".to_owned()),
        port: Some(i32::from(API_PORT)),
        protocol: Some("TCP".to_owned()),
        app_protocol: None,
    };
    EndpointSlice {
        metadata: meta(("kubernetes.io/service-name", NAME)),
        address_type: "IPv4".to_owned(),
        endpoints: vec![endpoint],
        ports: Some(vec![port]),
    }
}
