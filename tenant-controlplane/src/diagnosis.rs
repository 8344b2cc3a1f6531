//! Diagnosis: what keeps a control plane from coming up, quoted from the host, and who must act.
//!
//! A pod's own status comes first. Where it has no reason (a pod stuck in ContainerCreating), the host's latest warning event is used.

use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::observation::{PodInfo, WaitingReason};
use crate::status::{Problem, ProblemCode};
use crate::text::printable;

/// How long a warning event counts: events of a lasting problem repeat.
const MAX_AGE: Duration = Duration::minutes(3);
/// Warnings that come with every start, or that a pod's status explains better.
const IGNORED: [&str; 5] = ["Unhealthy", "BackOff", "FailedScheduling", "MissingClusterDNS", "DNSConfigForming"];
/// Where the scheduler's message continues with what does not matter here.
const IRRELEVANT: [&str; 2] = [" no new claims to deallocate", " preemption:"];
/// Kinds other than pods whose events count.
const CONTROLLERS: [&str; 4] = ["StatefulSet", "ReplicaSet", "Deployment", "PersistentVolumeClaim"];

/// Why a control plane does not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockingReason {
    reason: String,
    /// The host's words, with the name of the pod.
    pub text: String,
}

impl BlockingReason {
    fn new(owner: &str, reason: &str, message: &str) -> Self {
        // What the scheduler says of preemption helps nobody: control planes push nobody out.
        let message = IRRELEVANT.iter().fold(message, |message, aside| message.split(aside).next().unwrap_or(message));
        Self { reason: reason.to_owned(), text: printable(&format!("{owner}: {message}")) }
    }

    /// The waiting reason of the first of these pods that has one.
    pub fn of(pods: &[PodInfo]) -> Option<Self> {
        pods.iter().find_map(|pod| {
            let WaitingReason { reason, message } = pod.waiting_reason.as_ref()?;
            Some(Self::new(&pod.name, reason, message))
        })
    }

    /// The latest warning among a namespace's events that is about something not ready.
    pub fn latest(events: &[Value], pods: &[PodInfo], now: OffsetDateTime) -> Option<Self> {
        let warnings = events.iter().filter(|event| event["type"] == "Warning" && is_relevant(event, pods));
        let dated = warnings.filter_map(|event| Some((time(event)?, event)));
        let fresh = dated.filter(|(time, _)| now - *time < MAX_AGE);
        let (_, latest) = fresh.max_by_key(|(time, _)| *time)?;
        let text = |field: &str| latest[field].as_str().unwrap_or_default();
        let (reason, message) = (text("reason"), format!("{}: {}", text("reason"), text("message")));
        Some(Self::new(latest["involvedObject"]["name"].as_str().unwrap_or_default(), reason, &message))
    }

    /// The problem to report. Whatever it is, the operator must act: what a container printed when it exited is not considered.
    pub fn problem(&self) -> Problem {
        let (what, remediation) = self.verdict();
        Problem::new(ProblemCode::ControlPlanePods, format!("{what}: {}", self.text)).with_remediation(remediation)
    }

    /// What it is, and what helps.
    fn verdict(&self) -> (&'static str, &'static str) {
        match self.reason.as_str() {
            // Only the host's own controllers report this.
            "FailedCreate" if self.text.contains("exceeded quota") => (
                "Host ResourceQuota exceeded",
                "Retrying automatically. Platform operator: raise the ResourceQuota of the namespace on the host cluster.",
            ),
            "Unschedulable" if self.text.contains("olume") => (
                "No volume for etcd on the host cluster",
                "Retrying automatically. Platform operator: check the host cluster's storage class and its provisioner.",
            ),
            "Unschedulable" if self.text.contains("Insufficient") || self.text.contains("Too many pods") => (
                "Insufficient host capacity",
                "Retrying automatically. Platform operator: add CPU, memory or disk to the host cluster, or delete unused clusters.",
            ),
            "Unschedulable" => (
                "No schedulable host node",
                "Retrying automatically. Platform operator: a host node is cordoned, NotReady, or low on disk or \
                 memory; run `pilothouse doctor` or check the host's nodes.",
            ),
            "ErrImageNeverPull" | "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ImageInspectError" => {
                ("Image missing on the host", "Platform operator: run `pilothouse up` again; it loads the images.")
            }
            "FailedCreatePodSandBox" | "FailedPodSandBoxStatus" | "NetworkNotReady" => (
                "Host cannot start the control plane pods",
                "Retrying automatically. Platform operator: run `pilothouse doctor` and check the log of the host's node.",
            ),
            "FailedMount" | "FailedAttachVolume" | "ProvisioningFailed" => (
                "Host cannot mount a volume of the control plane",
                "Retrying automatically. Platform operator: check the host's storage.",
            ),
            "CrashLoopBackOff" | "RunContainerError" | "CreateContainerError" | "CreateContainerConfigError" => (
                "Control plane container is crash-looping",
                "Restarting automatically. Platform operator: check the pod's log on the host cluster.",
            ),
            _ => (
                "Control plane pod is not running",
                "Retrying automatically. Platform operator: check the host's pods.",
            ),
        }
    }
}

/// Whether it is about one of the pods that are not ready, or about who makes them.
fn is_relevant(event: &Value, pods: &[PodInfo]) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = (text(&event["involvedObject"]["kind"]), text(&event["involvedObject"]["name"]));
    let is_unready = || pods.iter().any(|pod| pod.name == about.1 && !pod.ready && !pod.terminating);
    !IGNORED.contains(&text(&event["reason"]).as_str())
        && (CONTROLLERS.contains(&about.0.as_str()) || (about.0 == "Pod" && is_unready()))
}

/// When it was last seen; each API of events has its own field.
fn time(event: &Value) -> Option<OffsetDateTime> {
    let fields = [
        &event["series"]["lastObservedTime"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["metadata"]["creationTimestamp"],
    ];
    let text = fields.into_iter().find_map(Value::as_str)?;
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClusterId;
    use crate::observation::Component;
    use crate::status::Class;
    use serde_json::json;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    fn pod(component: Component, name: &str) -> PodInfo {
        let cluster = ClusterId::from_uuid(uuid::Uuid::from_u128(1));
        let name = name.to_owned();
        PodInfo { cluster, component, name, address: None, ready: false, terminating: false, waiting_reason: None }
    }

    fn event(reason: &str, about: (&str, &str), time: &str) -> Value {
        json!({"type": "Warning", "reason": reason, "message": format!("words of {reason}"), "lastTimestamp": time,
            "involvedObject": {"kind": about.0, "name": about.1}})
    }

    #[test]
    fn the_latest_warning_about_something_unready_counts() {
        let etcd = pod(Component::Etcd, "etcd-0");
        let ready = PodInfo { ready: true, ..pod(Component::ControlPlane, "control-plane-a") };
        let pods = [etcd, ready];
        let events = [
            event("FailedMount", ("Pod", "etcd-0"), "2026-11-21T11:59:00Z"),
            event("FailedCreatePodSandBox", ("Pod", "etcd-0"), "2026-11-21T11:59:30Z"),
            event("Unhealthy", ("Pod", "etcd-0"), "2026-11-21T11:59:59Z"),
            event("FailedMount", ("Pod", "control-plane-a"), "2026-11-21T11:59:59Z"),
            event("FailedMount", ("Pod", "of-another"), "2026-11-21T11:59:59Z"),
            event("Odd", ("Gizmo", "x"), "2026-11-21T11:59:59Z"),
        ];
        let found = BlockingReason::latest(&events, &pods, NOW).unwrap();
        assert_eq!(found.text, "etcd-0: FailedCreatePodSandBox: words of FailedCreatePodSandBox");
        assert_eq!(found.problem().class, Class::Platform);
        assert_eq!(BlockingReason::latest(&events, &pods, NOW + Duration::minutes(4)), None, "old ones are over");
        let normal = json!({"type": "Normal", "reason": "Pulled", "lastTimestamp": "2026-11-21T11:59:59Z"});
        assert_eq!(BlockingReason::latest(&[normal], &pods, NOW), None);
    }

    #[test]
    fn everybody_is_told_whose_it_is() {
        let class = |reason: &str, message: &str| BlockingReason::new("etcd-0", reason, message).problem().class;
        assert_eq!(class("FailedCreate", "pods \"etcd-0\" is forbidden: exceeded quota: q"), Class::Platform);
        assert_eq!(class("Unschedulable", "0/1 nodes are available: 1 Insufficient memory."), Class::Platform);
        let printed = class("CrashLoopBackOff", "kube-apiserver: CrashLoopBackOff: exceeded quota: Insufficient");
        assert_eq!(printed, Class::Platform, "a tenant can make its API server print anything");
        let detail = |reason: &str, message: &str| BlockingReason::new("etcd-0", reason, message).problem().detail;
        assert!(detail("Unschedulable", "1 Insufficient cpu").starts_with("Insufficient host capacity"));
        assert!(detail("Unschedulable", "unbound PersistentVolumeClaims").starts_with("No volume for etcd"));
        let tainted =
            "0/1 nodes are available: 1 node(s) had untolerated taint(s). no new claims to deallocate, preemption: 0/1";
        let expected = "No schedulable host node: etcd-0: 0/1 nodes are available: 1 node(s) had untolerated taint(s).";
        assert_eq!(detail("Unschedulable", tainted), expected);
        assert!(detail("ErrImageNeverPull", "x").starts_with("Image missing on the host: etcd-0: "));
    }
}
