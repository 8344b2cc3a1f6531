//! CoreDNS: names of services inside a tenant's cluster, and the node's own resolver for the rest.
//!
//! It listens on 1053 behind the service's 53, so it needs neither root nor a capability, whatever the node's settings are.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, HTTPGetAction, PodSecurityContext,
    PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecurityContext, Service, ServiceAccount,
    ServicePort, ServiceSpec, Toleration, Volume, VolumeMount,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::{AddonInput, global, labels, namespaced, value};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "coredns";
const ROLE: &str = "system:coredns";
/// By this name and label clients and conformance tests find cluster DNS, whatever program it is.
const DNS_LABEL: (&str, &str) = ("k8s-app", "kube-dns");
const PORT: i32 = 1053;
const METRICS_PORT: i32 = 9153;
const HEALTH_PORT: i32 = 8080;
const READY_PORT: i32 = 8181;
const USER: i64 = 65532;

const COREFILE: &str = ".:1053 {
    errors
    health :8080 {
        lameduck 2s
    }
    ready :8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
        max_concurrent 1000
    }
    cache 30
    loop
    reload
    loadbalance
}
";

pub(super) fn objects(input: &AddonInput<'_>) -> Vec<Value> {
    vec![
        value(&ServiceAccount { metadata: namespaced(NAMESPACE, NAME), ..ServiceAccount::default() }),
        value(&cluster_role()),
        value(&cluster_role_binding()),
        value(&config()),
        value(&service(input)),
        value(&deployment(input)),
    ]
}

fn cluster_role() -> ClusterRole {
    let rule = |group: &str, resources: &[&str]| PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(resources.iter().map(ToString::to_string).collect()),
        verbs: vec!["list".to_owned(), "watch".to_owned()],
        ..PolicyRule::default()
    };
    let rules = vec![rule("", &["services", "pods", "namespaces"]), rule("discovery.k8s.io", &["endpointslices"])];
    ClusterRole { metadata: global(ROLE), rules: Some(rules), aggregation_rule: None }
}

fn cluster_role_binding() -> ClusterRoleBinding {
    let subject = Subject {
        kind: "ServiceAccount".to_owned(),
        name: NAME.to_owned(),
        namespace: Some(NAMESPACE.to_owned()),
        api_group: None,
    };
    let role_ref = RoleRef {
        api_group: "rbac.authorization.k8s.io".to_owned(),
        kind: "ClusterRole".to_owned(),
        name: ROLE.to_owned(),
    };
    ClusterRoleBinding { metadata: global(ROLE), role_ref, subjects: Some(vec![subject]) }
}

fn config() -> ConfigMap {
    let data = BTreeMap::from([("Corefile".to_owned(), COREFILE.to_owned())]);
    ConfigMap { metadata: namespaced(NAMESPACE, NAME), data: Some(data), ..ConfigMap::default() }
}

fn service(input: &AddonInput<'_>) -> Service {
    let port = |name: &str, protocol: &str, port: i32, target: i32| ServicePort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port,
        target_port: Some(IntOrString::Int(target)),
        ..ServicePort::default()
    };
    let ports = vec![
        port("dns", "UDP", 53, PORT),
        port("dns-tcp", "TCP", 53, PORT),
        port("metrics", "TCP", METRICS_PORT, METRICS_PORT),
    ];
    let labels = labels(&[DNS_LABEL, ("kubernetes.io/cluster-service", "true"), ("kubernetes.io/name", "CoreDNS")]);
    let spec = ServiceSpec {
        cluster_ip: Some(input.spec.dns_ip().to_string()),
        selector: Some(selector()),
        ports: Some(ports),
        ..ServiceSpec::default()
    };
    let metadata = ObjectMeta { labels: Some(labels), ..namespaced(NAMESPACE, "kube-dns") };
    Service { metadata, spec: Some(spec), ..Service::default() }
}

fn selector() -> BTreeMap<String, String> {
    BTreeMap::from([(DNS_LABEL.0.to_owned(), DNS_LABEL.1.to_owned())])
}

fn deployment(input: &AddonInput<'_>) -> Deployment {
    let metadata = ObjectMeta { labels: Some(labels(&[DNS_LABEL])), ..namespaced(NAMESPACE, NAME) };
    let template_meta = ObjectMeta { labels: Some(labels(&[DNS_LABEL])), ..ObjectMeta::default() };
    let spec = DeploymentSpec {
        replicas: Some(1),
        selector: LabelSelector { match_labels: Some(selector()), match_expressions: None },
        template: PodTemplateSpec { metadata: Some(template_meta), spec: Some(pod(input)) },
        revision_history_limit: Some(2),
        ..DeploymentSpec::default()
    };
    Deployment { metadata, spec: Some(spec), ..Deployment::default() }
}

fn pod(input: &AddonInput<'_>) -> PodSpec {
    let tolerate = |key: &str| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    };
    let config = ConfigMapVolumeSource { name: NAME.to_owned(), ..ConfigMapVolumeSource::default() };
    PodSpec {
        containers: vec![container(input)],
        service_account_name: Some(NAME.to_owned()),
        priority_class_name: Some("system-cluster-critical".to_owned()),
        // Not the cluster's DNS: it is the cluster's DNS.
        dns_policy: Some("Default".to_owned()),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(5),
        tolerations: Some(vec![tolerate("CriticalAddonsOnly"), tolerate("node-role.kubernetes.io/control-plane")]),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        volumes: Some(vec![Volume { name: "config".to_owned(), config_map: Some(config), ..Volume::default() }]),
        ..PodSpec::default()
    }
}

fn container(input: &AddonInput<'_>) -> Container {
    let port = |name: &str, number: i32, protocol: &str| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some(protocol.to_owned()),
        ..ContainerPort::default()
    };
    let ports = vec![port("dns", PORT, "UDP"), port("dns-tcp", PORT, "TCP"), port("metrics", METRICS_PORT, "TCP")];
    let mount = VolumeMount {
        name: "config".to_owned(),
        mount_path: "/etc/coredns".to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    Container {
        name: NAME.to_owned(),
        image: Some(input.coredns_image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["coredns".to_owned()]),
        args: Some(vec!["-conf".to_owned(), "/etc/coredns/Corefile".to_owned()]),
        ports: Some(ports),
        resources: Some(resources()),
        readiness_probe: Some(Probe { period_seconds: Some(1), ..probe("/ready", READY_PORT) }),
        liveness_probe: Some(Probe {
            initial_delay_seconds: Some(30),
            failure_threshold: Some(5),
            ..probe("/health", HEALTH_PORT)
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![mount]),
        ..Container::default()
    }
}

fn resources() -> ResourceRequirements {
    let amounts = |amounts: &[(&str, &str)]| {
        Some(amounts.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect())
    };
    ResourceRequirements {
        requests: amounts(&[("cpu", "50m"), ("memory", "40Mi")]),
        limits: amounts(&[("memory", "170Mi")]),
        ..ResourceRequirements::default()
    }
}

fn probe(path: &str, port: i32) -> Probe {
    let http_get =
        HTTPGetAction { path: Some(path.to_owned()), port: IntOrString::Int(port), ..HTTPGetAction::default() };
    Probe { http_get: Some(http_get), timeout_seconds: Some(5), ..Probe::default() }
}
