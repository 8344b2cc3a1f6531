//! Attacks on a running platform: tenants. The admin of one cluster fills it with large objects under the platform's label, with role
//! bindings, with an APIService that nobody answers, and puts a webhook that fails closed before every write: others notice nothing, the
//! page names it, and it can be deleted.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{World, ok, within};

/// Large objects, and how large each is, bytes: etcd takes no request above 1.5 MiB.
const OBJECTS: usize = 280;
const SIZE: usize = 1_000_000;
/// Role bindings of one namespace.
const BINDINGS: usize = 300;
/// kubectl holds what it sends: so many objects at a time.
const BATCH: usize = 40;
/// The most by which the platform's memory may be higher at its highest than that of one whose tenants are kind, KiB. Read as lists of
/// whole objects they were four times their size.
const MOST: u64 = 80 << 10;

#[test]
fn story_attack_tenants() {
    let Some(mut world) = World::up("tenants") else { return };
    let alone = create(&world, "alone");
    create(&world, "hostile");
    let kubeconfig = world.kubeconfig("hostile");
    let kind = highest_memory(&world);
    fill(&world, &kubeconfig);
    close(&world, &kubeconfig);
    // A platform that starts looks at everything again.
    let gateway = world.field("gateway");
    ok(&mut world.command(&["down"]));
    world.start();
    settled(&world);
    let beside = create(&world, "beside");
    let problem = within(60, "the webhook to be named", || {
        let hostile = get(&world, "hostile");
        let problem = hostile["problem"].clone();
        let detail = problem["detail"].as_str().unwrap_or_default();
        if detail.contains("failed calling webhook") { Ok(problem) } else { Err(hostile.to_string()) }
    });
    assert_eq!(problem["class"], "user", "{problem}");
    let command = "kubectl delete validatingwebhookconfiguration/guard";
    assert!(problem["remediation"].as_str().unwrap().contains(command), "{problem}");
    // As the page says; and then everything that carries our label is looked through.
    // The platform has another port now.
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    std::fs::write(&kubeconfig, text.replace(&gateway, &world.field("gateway"))).unwrap();
    ok(&mut world.kubectl(&kubeconfig, &["delete", "validatingwebhookconfiguration", "guard"]));
    within(90, "what an older platform left to be tidied up", || {
        let left =
            ["get", "configmap", "left-behind", "--namespace", "kube-system", "--ignore-not-found", "--output", "name"];
        let left = ok(&mut world.kubectl(&kubeconfig, &left));
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    let attacked = highest_memory(&world);
    eprintln!(
        "another tenant's create: {alone:?} before, {beside:?} beside (x{:.2}); memory at its highest: {} and {} MiB",
        beside.as_secs_f64() / alone.as_secs_f64(),
        kind >> 10,
        attacked >> 10,
    );
    assert!(attacked < kind + MOST, "{kind} KiB before, {attacked} KiB under attack");
    close(&world, &kubeconfig);
    ok(&mut world.user(&["cluster", "delete", "hostile", "--yes", "--wait=2m"]));
    world.down();
}

/// Waits until every control plane has started again: what that costs is not what a hostile tenant costs.
fn settled(world: &World) {
    let ready = "jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=='Ready')].status} {end}";
    within(120, "all pods of the host to be ready", || {
        let seen = ok(&mut world.host_kubectl(&["get", "pods", "-A", "-o", ready]));
        if seen.split_whitespace().all(|pod| pod.ends_with("=True")) { Ok(()) } else { Err(seen) }
    });
}

fn create(world: &World, name: &str) -> Duration {
    let begun = Instant::now();
    ok(&mut world.user(&["cluster", "create", name, "--wait"]));
    begun.elapsed()
}

fn get(world: &World, name: &str) -> Value {
    serde_json::from_str(&ok(&mut world.user(&["cluster", "get", name, "--output", "json"]))).unwrap()
}

/// The most memory that the platform's process ever had, KiB (`VmHWM` of proc(5)).
fn highest_memory(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.ready["pid"])).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Large objects that carry the platform's label, a small one that the platform itself seems to have left, role bindings, and an API that
/// is announced and that nobody serves.
fn fill(world: &World, kubeconfig: &Path) {
    let labels = json!({ "app.kubernetes.io/managed-by": "pilothouse" });
    let object = |name: &str, text: &str| {
        let metadata = json!({ "name": name, "namespace": "kube-system", "labels": labels });
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": { "text": text } })
    };
    let text = "a".repeat(SIZE);
    let large: Vec<Value> = (0..OBJECTS).map(|number| object(&format!("large-{number}"), &text)).collect();
    let bindings: Vec<Value> = (0..BINDINGS).map(|number| binding(&format!("many-{number}"))).collect();
    for items in large.chunks(BATCH).chain([&bindings[..]]) {
        ok(&mut with(world, kubeconfig, &["create"], &json!({ "apiVersion": "v1", "kind": "List", "items": items })));
    }
    let left = object("left-behind", "");
    ok(&mut with(world, kubeconfig, &["apply", "--server-side", "--field-manager", "pilothouse"], &left));
    let service = json!({ "service": { "name": "nobody", "namespace": "default" }, "group": "hostile.example.com",
        "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15, "insecureSkipTLSVerify": true });
    let metadata = json!({ "name": "v1.hostile.example.com" });
    let api = json!({ "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": metadata, "spec": service });
    ok(&mut with(world, kubeconfig, &["create"], &api));
}

fn binding(name: &str) -> Value {
    let subject = json!({ "kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io" });
    let role = json!({ "kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io" });
    json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "roleRef": role, "subjects": [subject],
        "metadata": { "name": name, "namespace": "default" } })
}

/// A webhook that nobody answers stands before every write.
fn close(world: &World, kubeconfig: &Path) {
    let everything =
        json!([{ "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"], "scope": "*" }]);
    let service = json!({ "service": { "name": "nobody", "namespace": "default" } });
    let webhook = json!({
        "name": "guard.example.com", "rules": everything, "clientConfig": service, "failurePolicy": "Fail",
        "sideEffects": "None", "admissionReviewVersions": ["v1"],
    });
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": "guard" }, "webhooks": [webhook],
    });
    ok(&mut with(world, kubeconfig, &["create"], &configuration));
}

/// kubectl with an object from a file.
fn with(world: &World, kubeconfig: &Path, words: &[&str], object: &Value) -> Command {
    let file = world.scratch.at("object.json");
    std::fs::write(&file, object.to_string()).unwrap();
    let mut command = world.kubectl(kubeconfig, words);
    command.arg("--filename").arg(file);
    command
}
