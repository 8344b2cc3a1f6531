//! What all pods of a control plane have in common: no root, no rights, no writable root, no token, a quick and graceful end.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction, Lifecycle, LifecycleHandler,
    PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext,
    SleepAction, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{PRIORITY_CLASS, PullPolicy, SERVICE_ACCOUNT};

/// Files of Secrets are for owner and group (the pod's) only.
const SECRET_MODE: i32 = 0o440;

/// A container in short.
pub(super) struct Plain<'a> {
    pub name: &'a str,
    pub image: &'a str,
    pub pull_policy: PullPolicy,
    pub args: Vec<String>,
    pub env: &'a [(&'a str, &'a str)],
    pub resources: Resources<'a>,
    pub mounts: Vec<VolumeMount>,
}

/// What a container asks for, and the memory at which it is ended. There is no limit on processors: a control plane that is throttled
/// while it starts is slow for no gain.
pub(super) struct Resources<'a> {
    pub cpu: &'a str,
    pub memory: &'a str,
    /// MiB.
    pub memory_limit: u32,
}

fn quantities(quantities: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    quantities.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
}

/// The container, hardened. Its program is `/<name>`, the one file of its image.
pub(super) fn container(plain: Plain<'_>) -> Container {
    let Resources { cpu, memory, memory_limit } = plain.resources;
    let variable =
        |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() };
    let env = plain.env.iter().map(|(name, value)| variable(name, (*value).to_owned()));
    // Near its limit a program collects its garbage harder instead of being ended.
    let env = env.chain([variable("GOMEMLIMIT", format!("{}MiB", memory_limit / 10 * 9))]);
    Container {
        name: plain.name.to_owned(),
        image: Some(plain.image.to_owned()),
        image_pull_policy: Some(plain.pull_policy.as_str().to_owned()),
        // By name: images differ in where they keep it, and each says so in its PATH.
        command: Some(vec![plain.name.to_owned()]),
        args: Some(plain.args),
        env: Some(env.collect()),
        resources: Some(ResourceRequirements {
            requests: Some(quantities(&[("cpu", cpu), ("memory", memory)])),
            limits: Some(quantities(&[("memory", &format!("{memory_limit}Mi"))])),
            ..ResourceRequirements::default()
        }),
        // Its last words say why it ended.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(hardened()),
        volume_mounts: Some(plain.mounts),
        ..Container::default()
    }
}

fn hardened() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

/// A pod of such containers that runs as `user` and ends within `grace_seconds`.
pub(super) fn pod(user: u32, containers: Vec<Container>, volumes: Vec<Volume>, grace_seconds: i64) -> PodSpec {
    let user = Some(i64::from(user));
    PodSpec {
        containers,
        volumes: Some(volumes).filter(|volumes| !volumes.is_empty()),
        service_account_name: Some(SERVICE_ACCOUNT.to_owned()),
        priority_class_name: Some(PRIORITY_CLASS.to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace_seconds),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: user,
            run_as_group: user,
            fs_group: user,
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

/// A probe by HTTP(S): scheme, path, port.
pub(super) fn http(scheme: &str, path: &str, port: u16) -> Probe {
    let http_get = HTTPGetAction {
        scheme: Some(scheme.to_owned()),
        path: Some(path.to_owned()),
        port: IntOrString::Int(i32::from(port)),
        ..HTTPGetAction::default()
    };
    Probe { http_get: Some(http_get), ..Probe::default() }
}

/// Asked every second, so that readiness is known within one.
pub(super) fn eager(probe: Probe) -> Probe {
    Probe { period_seconds: Some(1), timeout_seconds: Some(3), failure_threshold: Some(3), ..probe }
}

/// Asked until it says yes, for ten minutes; on a busy host what starts after it may come two seconds later for fewer questions.
pub(super) fn starting(probe: Probe) -> Probe {
    Probe { initial_delay_seconds: Some(1), period_seconds: Some(2), failure_threshold: Some(300), ..eager(probe) }
}

/// Asked seldom, and late: a busy host that starts five control planes at once must not lead to restarts.
pub(super) fn gentle(probe: Probe) -> Probe {
    Probe {
        initial_delay_seconds: Some(30),
        period_seconds: Some(10),
        timeout_seconds: Some(10),
        failure_threshold: Some(6),
        ..probe
    }
}

/// Stays up for some seconds after it was told to end (KEP-3960).
pub(super) fn lingering(seconds: i64) -> Lifecycle {
    let pre_stop = LifecycleHandler { sleep: Some(SleepAction { seconds }), ..LifecycleHandler::default() };
    Lifecycle { pre_stop: Some(pre_stop), ..Lifecycle::default() }
}

pub(super) fn port(name: &str, number: u16) -> ContainerPort {
    let (name, container_port) = (Some(name.to_owned()), i32::from(number));
    ContainerPort { name, container_port, protocol: Some("TCP".to_owned()), ..ContainerPort::default() }
}

pub(super) fn secret_volume(name: &str) -> Volume {
    let (secret_name, default_mode) = (Some(name.to_owned()), Some(SECRET_MODE));
    let secret = Some(SecretVolumeSource { secret_name, default_mode, ..SecretVolumeSource::default() });
    Volume { name: name.to_owned(), secret, ..Volume::default() }
}

pub(super) fn empty_volume(name: &str, size_limit: &str) -> Volume {
    let size_limit = Some(Quantity(size_limit.to_owned()));
    let empty_dir = Some(EmptyDirVolumeSource { size_limit, medium: None });
    Volume { name: name.to_owned(), empty_dir, ..Volume::default() }
}

pub(super) fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

pub(super) fn read_only(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(volume, path) }
}
