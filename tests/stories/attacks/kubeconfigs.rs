//! Attacks on a running platform: kubeconfigs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::world::{BUSYBOX, World, fails, ok, text, until, within};

/// As the security review had it: what the holder of a stolen file does to keep it.
const KEEP: &str = "keep-what-i-have";

/// A file of this role, and its id.
fn issue(world: &World, role: &str) -> (PathBuf, String) {
    let path = world.scratch.at(&format!("{role}.kubeconfig"));
    let begun = Instant::now();
    std::fs::write(&path, ok(&mut world.user(&["kubeconfig", "demo", "--role", role, "--name", role]))).unwrap();
    eprintln!("kubeconfig of role {role} after {} ms", begun.elapsed().as_millis());
    let id = listed(world).into_iter().find(|one| one["name"] == role).unwrap()["id"].as_str().unwrap().to_owned();
    (path, id)
}

fn listed(world: &World) -> Vec<Value> {
    let list = ok(&mut world.user(&["kubeconfig", "list", "--cluster", "demo", "-o", "json"]));
    serde_json::from_str::<Value>(&list).unwrap()["items"].as_array().unwrap().clone()
}

fn apply(world: &World, kubeconfig: &Path, name: &str, object: &Value, more: &[&str]) -> Result<(), String> {
    let file = world.scratch.at(&format!("{name}.json"));
    std::fs::write(&file, object.to_string()).unwrap();
    let words = [&["apply", "-f", file.to_str().unwrap()][..], more].concat();
    let output = world.kubectl(kubeconfig, &words).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
}

/// Nobody may delete a role binding any more, the platform included.
fn block_deletions(world: &World, kubeconfig: &Path) {
    let rule = json!({"apiGroups": ["rbac.authorization.k8s.io"], "apiVersions": ["v1"], "operations": ["DELETE"],
        "resources": ["clusterrolebindings"]});
    let spec = json!({"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false"}]});
    let binding = json!({"policyName": KEEP, "validationActions": ["Deny"]});
    for (kind, spec) in [("ValidatingAdmissionPolicy", spec), ("ValidatingAdmissionPolicyBinding", binding)] {
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": KEEP}, "spec": spec});
        apply(world, kubeconfig, kind, &object, &[]).unwrap();
    }
    until("the policy to be in force", || {
        let words = ["delete", "clusterrolebinding", KEEP, "--dry-run=server"];
        let output = world.kubectl(kubeconfig, &words).output().unwrap();
        if output.status.success() { Err("it may still be deleted".to_owned()) } else { Ok(()) }
    });
}

/// A watch that has begun.
fn watch(world: &World, kubeconfig: &Path) -> Child {
    let words = ["get", "namespaces", "--watch", "--output-watch-events", "-o", "name"];
    let mut child = world.kubectl(kubeconfig, &words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "the watch did not begin");
    child
}

/// Each container of the control plane with its restarts.
fn restarts(world: &World) -> String {
    let template = "{range .items[*]}{.metadata.name}{.status.initContainerStatuses[*].restartCount}{.status.containerStatuses[*].restartCount}{end}";
    let output = format!("jsonpath={template}");
    ok(&mut world.host_kubectl(&["get", "pods", "-A", "-l", "pilothouse.dev/component=control-plane", "-o", &output]))
}

/// Its holder bound its user again, and lets nobody delete bindings: the file is refused all the same, on new connections and on open
/// ones, and no other file is.
fn a_revoked_file_is_refused_whatever_its_holder_did(world: &World) {
    let ((stolen, id), (other, _)) = (issue(world, "admin"), issue(world, "edit"));
    tokens_end_within_a_day(world, &stolen);
    let before = restarts(world);
    let user = format!("--user=pilothouse:kubeconfig:{id}");
    ok(&mut world.kubectl(&stolen, &["create", "clusterrolebinding", KEEP, "--clusterrole=cluster-admin", &user]));
    let annotations = json!({"kubernetes.io/service-account.name": "default"});
    let metadata = json!({"name": KEEP, "namespace": "default", "annotations": annotations});
    let token = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token", "metadata": metadata});
    apply(world, &stolen, "token", &token, &[]).unwrap();
    block_deletions(world, &stolen);
    let mut open = watch(world, &stolen);
    let begun = Instant::now();
    let revoke = world.user(&["kubeconfig", "revoke", &id]).output().unwrap();
    assert!(
        text(&revoke.stderr).contains("the cluster rejects it"),
        "{}{}",
        text(&revoke.stdout),
        text(&revoke.stderr)
    );
    eprintln!("revoked and refused after {} ms", begun.elapsed().as_millis());
    let (_, told) = fails(&mut world.kubectl(&stolen, &["get", "namespaces"]));
    assert!(told.contains("Unauthorized"), "{told}");
    within(10, "the open watch to end", || open.try_wait().unwrap().ok_or_else(|| "it goes on".to_owned()));
    ok(&mut world.kubectl(&other, &["get", "configmaps"]));
    let row = listed(world).into_iter().find(|one| one["id"] == id.as_str()).unwrap();
    assert_eq!(row["state"], "revoked", "{row}");
    until("what it left behind to be told", || {
        let row = listed(world).into_iter().find(|one| one["id"] == id.as_str()).unwrap();
        let told = row["left_behind"].as_str().unwrap_or_default();
        let all = [format!("ClusterRoleBinding {KEEP}"), format!("Secret default/{KEEP}")];
        if all.iter().all(|one| told.contains(one)) { Ok(()) } else { Err(row.to_string()) }
    });
    assert_eq!(restarts(world), before, "a control plane was restarted for it");
}

fn pod(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": namespace}, "spec": {
        "serviceAccountName": if namespace == "default" { "default" } else { "generic-garbage-collector" },
        "containers": [{"name": "x", "image": BUSYBOX, "command": ["sleep", "9"]}]}})
}

/// Whoever asks for a token of a service account chooses its lifetime, within a day.
fn tokens_end_within_a_day(world: &World, admin: &Path) {
    let words = ["create", "token", "default", "--duration=87600h", "-o", "jsonpath={.status.expirationTimestamp}"];
    let said = ok(&mut world.kubectl(admin, &words));
    let end = OffsetDateTime::parse(said.trim(), &Rfc3339).unwrap();
    let begun = OffsetDateTime::now_utc();
    assert!(end > begun && end <= begun + time::Duration::hours(24), "{said}");
}

/// The ways from `edit` to everything that are known.
fn edit_stays_edit(world: &World, edit: &Path) {
    const DRY: &[&str] = &["--dry-run=server"];
    // A policy is in force some seconds after it is there.
    until("the policy to be in force", || match apply(world, edit, "pod", &pod("kube-system"), DRY) {
        Err(told) if told.contains("role edit changes nothing in Kubernetes' own namespaces") => Ok(()),
        Err(told) => Err(told),
        Ok(()) => Err("a pod in kube-system is accepted".to_owned()),
    });
    let rules = r#"[{"op":"add","path":"/rules/-","value":{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}}]"#;
    let attempts: &[&[&str]] = &[
        &["create", "token", "-n", "kube-system", "clusterrole-aggregation-controller"],
        &["create", "token", "default"],
        &["get", "secrets", "--as=system:serviceaccount:kube-system:generic-garbage-collector"],
        &["patch", "clusterrole", "edit", "--type=json", "-p", rules],
        &["patch", "clusterrole", "pilothouse:edit-workloads", "--type=json", "-p", rules],
        &["label", "clusterrole", "cluster-admin", "pilothouse.dev/aggregate-to-edit=true"],
        &["create", "clusterrolebinding", "me", "--clusterrole=cluster-admin", "--group=pilothouse:role:edit"],
        &["delete", "validatingadmissionpolicybinding", "edit.pilothouse.dev"],
        &["create", "configmap", "x", "-n", "kube-system"],
        &["create", "serviceaccount", "x", "-n", "kube-public"],
        &["delete", "service", "kubernetes"],
        &["delete", "--raw", "/api/v1/namespaces/default/services"],
        &["label", "namespace", "kube-system", "a=b"],
    ];
    for words in attempts {
        let (_, told) = fails(&mut world.kubectl(edit, words));
        assert!(told.contains("orbidden") || told.contains("denied"), "{words:?}: {told}");
    }
    // The API server answers as after an authorizer that fails, with the reason.
    for words in [&["-n", "kube-system"][..], &["-n", "kube-public"], &["-A"], &["-n", "kube-system", "a-name"]] {
        let (_, told) = fails(&mut world.kubectl(edit, &[&["get", "secrets"][..], words].concat()));
        assert!(told.contains("role edit reads secrets namespace by namespace"), "{words:?}: {told}");
    }
    let annotations = json!({"kubernetes.io/service-account.name": "default"});
    let token = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "x", "annotations": annotations}});
    let told = apply(world, edit, "secret", &token, DRY).unwrap_err();
    assert!(told.contains("makes no tokens of service accounts"), "{told}");
    let spec = json!({"ports": [{"port": 6443}], "externalIPs": ["198.18.0.1"]});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": spec});
    let told = apply(world, edit, "service", &service, DRY).unwrap_err();
    assert!(told.contains("gives services no external IPs"), "{told}");
    // And it is good for what it is for.
    apply(world, edit, "own-pod", &pod("default"), DRY).unwrap();
    ok(&mut world.kubectl(edit, &["create", "configmap", "own"]));
    ok(&mut world.kubectl(edit, &["create", "secret", "generic", "own", "--from-literal=a=b"]));
    ok(&mut world.kubectl(edit, &["get", "secrets", "-n", "default"]));
}

fn view_reads_no_secret(world: &World) {
    let (view, _) = issue(world, "view");
    for words in [&["get", "secrets", "-A"][..], &["get", "secret", "own", "-n", "default"]] {
        let (_, told) = fails(&mut world.kubectl(&view, words));
        assert!(told.contains("orbidden"), "{words:?}: {told}");
    }
    ok(&mut world.kubectl(&view, &["get", "configmap", "own"]));
}

/// As `kubectl config view --flatten` merges them.
fn files_merge(world: &World) {
    let files = ["admin", "edit", "view"].map(|role| world.scratch.at(&format!("{role}.kubeconfig")));
    let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let mut command = world.kubectl(Path::new(files[0]), &[]);
    let mut merged = std::process::Command::new(command.env_remove("KUBECONFIG").get_program());
    let names = ok(merged.args(["config", "get-contexts", "-o", "name"]).env("KUBECONFIG", files.join(":")));
    assert_eq!(names.lines().filter(|name| name.starts_with("default/default/demo/kcf_")).count(), 3, "{names}");
}

/// A client that knows no `tls-server-name`, such as Kubernetes' own `e2e.test`: refused at the shared port, let in at the cluster's own.
fn a_client_without_names_has_a_port(world: &World) {
    let file = |name: &str, endpoint: &str| {
        let text =
            ok(&mut world.user(&["kubeconfig", "demo", "--role", "view", "--name", name, "--endpoint", endpoint]));
        let path = world.scratch.at(&format!("{name}.kubeconfig"));
        std::fs::write(
            &path,
            text.lines().filter(|line| !line.contains("tls-server-name")).collect::<Vec<_>>().join("\n"),
        )
        .unwrap();
        path
    };
    let (_, told) = fails(&mut world.kubectl(&file("stripped", "sni"), &["get", "namespaces"]));
    assert!(told.contains("x509"), "{told}");
    ok(&mut world.kubectl(&file("own-port", "port"), &["get", "namespaces"]));
    let (_, told) = fails(&mut world.user(&["kubeconfig", "demo", "--endpoint", "dns"]));
    assert!(told.contains("--domain"), "{told}");
}

#[test]
fn story_attack_kubeconfigs() {
    let ports = ["--spares", "0", "--cluster-ports", "20970-20979"];
    let Some(world) = World::up_with("kcf", &ports) else { return };
    ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    a_revoked_file_is_refused_whatever_its_holder_did(&world);
    edit_stays_edit(&world, &world.scratch.at("edit.kubeconfig"));
    view_reads_no_secret(&world);
    files_merge(&world);
    a_client_without_names_has_a_port(&world);
    ok(&mut world.user(&["cluster", "delete", "demo", "--yes", "--wait"]));
    world.down();
}
