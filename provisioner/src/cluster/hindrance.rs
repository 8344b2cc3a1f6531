//! What keeps a control plane from coming up, in the host's words, and whose it is to mend.
//!
//! A pod's own status says it best. Where that says nothing (a pod that is "being made" for ever), the host's latest warning does.

use serde_json::Value;
use tenant_controlplane::status::{Class, Problem};
use tenant_controlplane::text::printable;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::host::{Complaint, PodFact};

/// How long a warning counts: what still goes wrong is said again.
const FRESH: Duration = Duration::minutes(3);
/// Warnings that come with every start, or that a pod's status says better.
const NOISE: [&str; 5] = ["Unhealthy", "BackOff", "FailedScheduling", "MissingClusterDNS", "DNSConfigForming"];
/// Where the scheduler goes on to what is of no use here.
const ASIDES: [&str; 2] = [" no new claims to deallocate", " preemption:"];
/// Who else than pods may have something to say.
const OWNERS: [&str; 4] = ["StatefulSet", "ReplicaSet", "Deployment", "PersistentVolumeClaim"];

/// Something in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    reason: String,
    /// The host's words, with the name of the pod.
    pub text: String,
}

impl Hindrance {
    fn new(whose: &str, reason: &str, words: &str) -> Self {
        // What the scheduler says of preemption helps nobody: control planes push nobody out.
        let words = ASIDES.iter().fold(words, |words, aside| words.split(aside).next().unwrap_or(words));
        Self { reason: reason.to_owned(), text: printable(&format!("{whose}: {words}")) }
    }

    /// What the first of these pods complains of.
    pub fn of(pods: &[PodFact]) -> Option<Self> {
        pods.iter().find_map(|pod| {
            let Complaint { reason, message } = pod.complaint.as_ref()?;
            Some(Self::new(&pod.name, reason, message))
        })
    }

    /// The latest warning among a namespace's events that is about something not ready.
    pub fn latest(events: &[Value], pods: &[PodFact], now: OffsetDateTime) -> Option<Self> {
        let warnings = events.iter().filter(|event| event["type"] == "Warning" && concerns(event, pods));
        let dated = warnings.filter_map(|event| Some((time(event)?, event)));
        let fresh = dated.filter(|(time, _)| now - *time < FRESH);
        let (_, latest) = fresh.max_by_key(|(time, _)| *time)?;
        let text = |field: &str| latest[field].as_str().unwrap_or_default();
        let (reason, words) = (text("reason"), format!("{}: {}", text("reason"), text("message")));
        Some(Self::new(latest["involvedObject"]["name"].as_str().unwrap_or_default(), reason, &words))
    }

    /// What to tell people.
    pub fn problem(&self) -> Problem {
        let (class, what, remediation) = self.verdict();
        Problem {
            code: "CONTROL_PLANE_PODS".to_owned(),
            class,
            detail: format!("{what}: {}", self.text),
            remediation: remediation.to_owned(),
        }
    }

    /// Whose it is, what it is, and the next step.
    fn verdict(&self) -> (Class, &'static str, &'static str) {
        match self.reason.as_str() {
            // Only the host's own controllers say this; what a program of the control plane printed at its end is not asked.
            "FailedCreate" if self.text.contains("exceeded quota") => (
                Class::Platform,
                "Host ResourceQuota exceeded",
                "Retrying automatically. Platform operator: raise the ResourceQuota of the namespace on the host cluster.",
            ),
            "Unschedulable" if self.text.contains("olume") => (
                Class::Platform,
                "No volume for etcd on the host cluster",
                "Retrying automatically. Platform operator: check the host cluster's storage class and its provisioner.",
            ),
            "Unschedulable" if self.text.contains("Insufficient") || self.text.contains("Too many pods") => (
                Class::Platform,
                "Insufficient host capacity",
                "Retrying automatically. Platform operator: add CPU, memory or disk to the host cluster, or delete unused clusters.",
            ),
            "Unschedulable" => (
                Class::Platform,
                "No schedulable host node",
                "Retrying automatically. Platform operator: a host node is cordoned, NotReady, or low on disk or \
                 memory; run `pilothouse doctor` or check the host's nodes.",
            ),
            "ErrImageNeverPull" | "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ImageInspectError" => (
                Class::Platform,
                "Image missing on the host",
                "Platform operator: run `pilothouse up` again; it loads the images.",
            ),
            "FailedCreatePodSandBox" | "FailedPodSandBoxStatus" | "NetworkNotReady" => (
                Class::Platform,
                "Host cannot start the control plane pods",
                "Retrying automatically. Platform operator: run `pilothouse doctor` and check the log of the host's node.",
            ),
            "FailedMount" | "FailedAttachVolume" | "ProvisioningFailed" => (
                Class::Platform,
                "Host cannot mount a volume of the control plane",
                "Retrying automatically. Platform operator: check the host's storage.",
            ),
            "CrashLoopBackOff" | "RunContainerError" | "CreateContainerError" | "CreateContainerConfigError" => (
                Class::Platform,
                "Control plane container is crash-looping",
                "Restarting automatically. Platform operator: check the pod's log on the host cluster.",
            ),
            _ => (
                Class::Platform,
                "Control plane pod is not running",
                "Retrying automatically. Platform operator: check the host's pods.",
            ),
        }
    }
}

/// Whether it is about one of the pods that are not ready, or about who makes them.
fn concerns(event: &Value, pods: &[PodFact]) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let about = (text(&event["involvedObject"]["kind"]), text(&event["involvedObject"]["name"]));
    let waits = || pods.iter().any(|pod| pod.name == about.1 && !pod.ready && !pod.leaving);
    !NOISE.contains(&text(&event["reason"]).as_str())
        && (OWNERS.contains(&about.0.as_str()) || (about.0 == "Pod" && waits()))
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
    use crate::host::facts::Component;
    use crate::pods::tests::pod;
    use serde_json::json;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    fn event(reason: &str, about: (&str, &str), time: &str) -> Value {
        json!({"type": "Warning", "reason": reason, "message": format!("words of {reason}"), "lastTimestamp": time,
            "involvedObject": {"kind": about.0, "name": about.1}})
    }

    #[test]
    fn the_latest_warning_about_something_unready_counts() {
        let etcd = pod(1, Component::Etcd, "etcd-0", [10, 0, 0, 1]);
        let ready = PodFact { ready: true, ..pod(1, Component::ControlPlane, "control-plane-a", [10, 0, 0, 2]) };
        let pods = [etcd, ready];
        let events = [
            event("FailedMount", ("Pod", "etcd-0"), "2026-11-21T11:59:00Z"),
            event("FailedCreatePodSandBox", ("Pod", "etcd-0"), "2026-11-21T11:59:30Z"),
            event("Unhealthy", ("Pod", "etcd-0"), "2026-11-21T11:59:59Z"),
            event("FailedMount", ("Pod", "control-plane-a"), "2026-11-21T11:59:59Z"),
            event("FailedMount", ("Pod", "a-strangers"), "2026-11-21T11:59:59Z"),
            event("Odd", ("Gizmo", "x"), "2026-11-21T11:59:59Z"),
        ];
        let found = Hindrance::latest(&events, &pods, NOW).unwrap();
        assert_eq!(found.text, "etcd-0: FailedCreatePodSandBox: words of FailedCreatePodSandBox");
        assert_eq!(found.problem().class, Class::Platform);
        assert_eq!(Hindrance::latest(&events, &pods, NOW + Duration::minutes(4)), None, "old ones are over");
        let normal = json!({"type": "Normal", "reason": "Pulled", "lastTimestamp": "2026-11-21T11:59:59Z"});
        assert_eq!(Hindrance::latest(&[normal], &pods, NOW), None);
    }

    #[test]
    fn everybody_is_told_whose_it_is() {
        let class = |reason: &str, words: &str| Hindrance::new("etcd-0", reason, words).problem().class;
        assert_eq!(class("FailedCreate", "pods \"etcd-0\" is forbidden: exceeded quota: q"), Class::Platform);
        assert_eq!(class("Unschedulable", "0/1 nodes are available: 1 Insufficient memory."), Class::Platform);
        let printed = class("CrashLoopBackOff", "kube-apiserver: CrashLoopBackOff: exceeded quota: Insufficient");
        assert_eq!(printed, Class::Platform, "a tenant can make its API server print anything");
        let detail = |reason: &str, words: &str| Hindrance::new("etcd-0", reason, words).problem().detail;
        assert!(detail("Unschedulable", "1 Insufficient cpu").starts_with("Insufficient host capacity"));
        assert!(detail("Unschedulable", "unbound PersistentVolumeClaims").starts_with("No volume for etcd"));
        let tainted =
            "0/1 nodes are available: 1 node(s) had untolerated taint(s). no new claims to deallocate, preemption: 0/1";
        let told = "No schedulable host node: etcd-0: 0/1 nodes are available: 1 node(s) had untolerated taint(s).";
        assert_eq!(detail("Unschedulable", tainted), told);
        assert!(detail("ErrImageNeverPull", "x").starts_with("Image missing on the host: etcd-0: "));
    }
}
