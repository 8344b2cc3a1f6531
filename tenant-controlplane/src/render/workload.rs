//! The two owners of pods: etcd with its volume, and the control plane's three programs in one pod.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment, StatefulSet,
    StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    Container, HostAlias, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSpec, PodTemplateSpec,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::{
    Plain, Resources, container, eager, empty_volume, gentle, http, lingering, mount, pod, port, read_only,
    secret_volume, starting,
};
use super::{CHECKSUM_ANNOTATION, CLIENT_AUTHORITIES, CONTROL_PLANE, ComponentFiles, ETCD, RenderInput};
use crate::component::{apiserver, controller_manager, etcd as etcd_component, scheduler};
use crate::sni;
use crate::spec::{API_PORT, NODE_LOCAL_API};

const DATA: &str = "data";
const AUDIT: &str = "audit";
const AUDIT_DIR: &str = "/var/log/kubernetes";
const SCRATCH: &str = "scratch";
const SCRATCH_DIR: &str = "/tmp";
/// Seconds etcd stays up when its pod is told to end: an API server that ends at the same time cannot without it.
const ETCD_LINGER: i64 = 2;
/// Seconds etcd gets to end in, its lingering included.
const ETCD_GRACE: i64 = 5;
/// Seconds the control plane gets to end in.
const CONTROL_PLANE_GRACE: i64 = 5;

fn template(input: &RenderInput<'_>, component: &str, checksums: &[String], spec: PodSpec) -> PodTemplateSpec {
    let annotations = BTreeMap::from([(CHECKSUM_ANNOTATION.to_owned(), checksums.join("-"))]);
    let metadata = ObjectMeta {
        labels: Some(input.component_labels(component)),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

fn selector(input: &RenderInput<'_>, component: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(input.component_labels(component)), match_expressions: None }
}

/// etcd: one pod on a volume that goes when the StatefulSet goes. Nobody can take its place while it restarts, so it restarts only for
/// what it would not see otherwise.
pub(super) fn etcd(input: &RenderInput<'_>, files: &ComponentFiles) -> StatefulSet {
    // It asks for no names; without this a host that has no DNS complains at every start.
    let spec = PodSpec {
        dns_policy: Some("Default".to_owned()),
        ..pod(input.user, vec![etcd_container(input)], vec![secret_volume(etcd_component::NAME)], ETCD_GRACE)
    };
    let retention = StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some("Delete".to_owned()),
        when_scaled: Some("Retain".to_owned()),
    };
    let spec = StatefulSetSpec {
        service_name: Some(ETCD.to_owned()),
        replicas: Some(1),
        pod_management_policy: Some("Parallel".to_owned()),
        selector: selector(input, ETCD),
        template: template(input, ETCD, &[files.etcd.checksum_of(etcd_component::READ_AT_START)], spec),
        volume_claim_templates: Some(vec![data_claim(input)]),
        persistent_volume_claim_retention_policy: Some(retention),
        revision_history_limit: Some(2),
        ..StatefulSetSpec::default()
    };
    let metadata = ObjectMeta { labels: Some(input.component_labels(ETCD)), ..input.meta(ETCD) };
    StatefulSet { metadata, spec: Some(spec), ..StatefulSet::default() }
}

fn etcd_container(input: &RenderInput<'_>) -> Container {
    let plain = Plain {
        name: etcd_component::NAME,
        image: &input.placement.images.etcd,
        pull_policy: input.placement.pull_policy,
        args: etcd_component::flags(&etcd_component::Settings::pod(input.placement.fsync)),
        env: &[],
        // Two API servers that begin beside each other read all of it at once, and each answer is there three times: with 280 MB of objects
        // 1 GiB was not enough.
        resources: Resources { cpu: "20m", memory: "40Mi", memory_limit: 2048 },
        mounts: vec![read_only(etcd_component::NAME, etcd_component::POD_FILES), mount(DATA, etcd_component::POD_DATA)],
    };
    Container {
        ports: Some(vec![port("client", etcd_component::CLIENT_PORT), port("health", etcd_component::HEALTH_PORT)]),
        lifecycle: Some(lingering(ETCD_LINGER)),
        readiness_probe: Some(eager(http("HTTP", "/readyz", etcd_component::HEALTH_PORT))),
        liveness_probe: Some(gentle(http("HTTP", "/livez", etcd_component::HEALTH_PORT))),
        ..container(plain)
    }
}

/// In whole Gi, as Kubernetes would write it.
fn size(bytes: u64) -> String {
    format!("{}Gi", bytes.div_ceil(1 << 30))
}

fn data_claim(input: &RenderInput<'_>) -> PersistentVolumeClaim {
    let requests = BTreeMap::from([("storage".to_owned(), Quantity(size(etcd_component::VOLUME)))]);
    let spec = PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
        storage_class_name: input.placement.storage_class.clone(),
        resources: Some(VolumeResourceRequirements { requests: Some(requests), limits: None }),
        volume_mode: Some("Filesystem".to_owned()),
        ..PersistentVolumeClaimSpec::default()
    };
    let metadata =
        ObjectMeta { name: Some(DATA.to_owned()), labels: Some(input.component_labels(ETCD)), ..ObjectMeta::default() };
    PersistentVolumeClaim { metadata, spec: Some(spec), ..PersistentVolumeClaim::default() }
}

/// The claim that the stateful set would make for its first pod, made ahead of it: so it is bound before the pod is scheduled. (A claim that
/// waits for its pod costs the scheduler's one-second look.) The stateful set takes it for its own by its name.
pub(super) fn first_claim(input: &RenderInput<'_>) -> PersistentVolumeClaim {
    let claim = data_claim(input);
    let metadata = ObjectMeta { labels: claim.metadata.labels, ..input.meta(&format!("{DATA}-{ETCD}-0")) };
    PersistentVolumeClaim { metadata, ..claim }
}

/// API server, controller manager and scheduler in one pod, in this order. A roll-over brings all new pods up before an old one goes.
pub(super) fn control_plane(input: &RenderInput<'_>, files: &ComponentFiles) -> Deployment {
    let checksums =
        [files.apiserver.checksum(), files.controller_manager.checksum(), files.scheduler.checksum()].map(short);
    let rolling = RollingUpdateDeployment {
        max_surge: Some(IntOrString::String("100%".to_owned())),
        max_unavailable: Some(IntOrString::Int(0)),
    };
    let spec = DeploymentSpec {
        replicas: Some(i32::from(input.spec.replicas)),
        selector: selector(input, CONTROL_PLANE),
        strategy: Some(DeploymentStrategy { type_: Some("RollingUpdate".to_owned()), rolling_update: Some(rolling) }),
        template: template(input, CONTROL_PLANE, &checksums, control_plane_pod(input)),
        revision_history_limit: Some(2),
        ..DeploymentSpec::default()
    };
    let metadata = ObjectMeta { labels: Some(input.component_labels(CONTROL_PLANE)), ..input.meta(CONTROL_PLANE) };
    Deployment { metadata, spec: Some(spec), ..Deployment::default() }
}

/// Three full checksums side by side would be read by nobody; 64 bits of each tell any two apart.
fn short(checksum: String) -> String {
    checksum.chars().take(16).collect()
}

fn control_plane_pod(input: &RenderInput<'_>) -> PodSpec {
    let volumes = vec![
        secret_volume(apiserver::NAME),
        secret_volume(CLIENT_AUTHORITIES),
        secret_volume(controller_manager::NAME),
        secret_volume(scheduler::NAME),
        empty_volume(AUDIT, "128Mi"),
        empty_volume(SCRATCH, "16Mi"),
    ];
    // A sidecar (KEP-753) starts before the containers, which wait for its startup probe, and ends after them. Started beside it they would
    // take processors from it, the controller manager would give up after ten seconds, and both would look for it again ever less often.
    let sidecars = vec![apiserver_container(input)];
    let containers = vec![controller_manager_container(input), scheduler_container(input)];
    // Where we know etcd's address the host need have no DNS; its pods then resolve the rest as the node does.
    let dns_policy = if input.placement.etcd_ip.is_some() { "Default" } else { "ClusterFirst" };
    PodSpec {
        host_aliases: Some(host_aliases(input)),
        dns_policy: Some(dns_policy.to_owned()),
        init_containers: Some(sidecars),
        ..pod(input.user, containers, volumes, CONTROL_PLANE_GRACE)
    }
}

fn host_aliases(input: &RenderInput<'_>) -> Vec<HostAlias> {
    let alias = |ip: IpAddr, name: String| HostAlias { ip: ip.to_string(), hostnames: Some(vec![name]) };
    let gateway = alias(input.placement.gateway_ip, sni::egress(input.cluster, &input.placement.domain));
    input.placement.etcd_ip.map(|ip| alias(ip, ETCD.to_owned())).into_iter().chain([gateway]).collect()
}

fn apiserver_container(input: &RenderInput<'_>) -> Container {
    let (cluster, domain) = (input.cluster, input.placement.domain.as_str());
    let flags = apiserver::flags(&apiserver::Settings {
        files: apiserver::POD_FILES,
        client_files: apiserver::POD_CLIENT_FILES,
        audit_log: &format!("{AUDIT_DIR}/audit.log"),
        bind: Ipv4Addr::UNSPECIFIED.into(),
        port: API_PORT,
        advertise: NODE_LOCAL_API.into(),
        external_name: &sni::api(cluster, domain),
        issuer: &sni::issuer(cluster, domain),
        etcd_url: &format!("https://{ETCD}:{}", etcd_component::CLIENT_PORT),
        service_cidr: input.spec.service_cidr,
        tunnel: true,
        publishes_endpoint: false,
    });
    let plain = Plain {
        name: apiserver::NAME,
        image: &input.placement.images.apiserver,
        pull_policy: input.placement.pull_policy,
        args: flags,
        env: apiserver::ENV,
        resources: Resources { cpu: "50m", memory: "192Mi", memory_limit: 2048 },
        mounts: vec![
            read_only(apiserver::NAME, apiserver::POD_FILES),
            // As a directory: a file mounted alone (`subPath`) would never change.
            read_only(CLIENT_AUTHORITIES, apiserver::POD_CLIENT_FILES),
            mount(AUDIT, AUDIT_DIR),
            mount(SCRATCH, SCRATCH_DIR),
        ],
    };
    Container {
        ports: Some(vec![port("https", API_PORT)]),
        restart_policy: Some("Always".to_owned()),
        startup_probe: Some(starting(http("HTTPS", "/readyz", API_PORT))),
        readiness_probe: Some(eager(http("HTTPS", "/readyz", API_PORT))),
        liveness_probe: Some(gentle(http("HTTPS", "/livez", API_PORT))),
        ..container(plain)
    }
}

fn controller_manager_container(input: &RenderInput<'_>) -> Container {
    let flags = controller_manager::flags(&controller_manager::Settings {
        files: controller_manager::POD_FILES,
        scratch: SCRATCH_DIR,
        leader_elect: input.spec.replicas > 1,
    });
    container(Plain {
        name: controller_manager::NAME,
        image: &input.placement.images.controller_manager,
        pull_policy: input.placement.pull_policy,
        args: flags,
        env: controller_manager::ENV,
        resources: Resources { cpu: "20m", memory: "48Mi", memory_limit: 1024 },
        mounts: vec![read_only(controller_manager::NAME, controller_manager::POD_FILES), mount(SCRATCH, SCRATCH_DIR)],
    })
}

fn scheduler_container(input: &RenderInput<'_>) -> Container {
    let settings = scheduler::Settings { files: scheduler::POD_FILES, leader_elect: input.spec.replicas > 1 };
    container(Plain {
        name: scheduler::NAME,
        image: &input.placement.images.scheduler,
        pull_policy: input.placement.pull_policy,
        args: scheduler::flags(&settings),
        env: scheduler::ENV,
        resources: Resources { cpu: "10m", memory: "24Mi", memory_limit: 512 },
        mounts: vec![read_only(scheduler::NAME, scheduler::POD_FILES)],
    })
}
