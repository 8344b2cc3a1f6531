//! Standby control planes: a request finds one that runs, nobody finds them otherwise, and they come back and go as the operator says.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::{World, fails, ok, until};

/// The clusters that live in the host, whose pods are all ready: their namespaces, and their names there.
fn whole(world: &World) -> BTreeMap<String, String> {
    let json = |words: &[&str]| -> Value { serde_json::from_str(&ok(&mut world.host_kubectl(words))).unwrap() };
    let all = json(&["get", "deployments,statefulsets", "-A", "-l", "pilothouse.dev/cluster", "-o", "json"]);
    let ready = |namespace: &str| {
        let own = |object: &&Value| object["metadata"]["namespace"] == namespace;
        let owners = all["items"].as_array().unwrap().iter().filter(own);
        owners.filter(|owner| owner["status"]["readyReplicas"] == 1).count() == 2
    };
    let namespaces = json(&["get", "ns", "-l", "pilothouse.dev/cluster", "-o", "json"]);
    let found = namespaces["items"].as_array().unwrap().iter().map(|namespace| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let label = &namespace["metadata"]["labels"]["pilothouse.dev/cluster-name"];
        (text(&namespace["metadata"]["name"]), text(label))
    });
    found.filter(|(namespace, _)| ready(namespace)).collect()
}

/// Spares are made while the processors are idle, which a kubectl that never rests keeps them from.
fn look_away() {
    std::thread::sleep(Duration::from_secs(2));
}

/// Waits until so many spares run beside what has these names, and nothing else; gives the spares' namespaces.
fn spares(world: &World, count: usize, others: &[&str]) -> Vec<String> {
    until("spares", || {
        let namespaces = ok(&mut world.host_kubectl(&["get", "ns", "-o", "name"]));
        let seen = whole(world);
        let (spare, other): (Vec<_>, Vec<_>) = seen.iter().partition(|(_, name)| name.starts_with("spare-"));
        let names: Vec<_> = other.iter().map(|(_, name)| name.as_str()).collect();
        let all = namespaces.matches("namespace/ph-").count() == seen.len();
        let right = all && names == others && spare.len() == count;
        if right {
            return Ok(spare.into_iter().map(|(namespace, _)| namespace.clone()).collect());
        }
        look_away();
        Err(namespaces)
    })
}

#[test]
fn story_spares() {
    let Some(mut world) = World::up_with("spare", &["--spares", "2"]) else { return };
    let ahead = spares(&world, 2, &[]);
    let id = format!("cls_{}", ahead[0].trim_start_matches("ph-"));
    let (_, refused) = fails(&mut world.user(&["cluster", "get", &id]));
    assert!(refused.contains("NOT_FOUND"), "{refused}");
    assert_eq!(ok(&mut world.user(&["cluster", "list", "-o", "name"])).trim(), "");

    ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    let pid = i32::try_from(world.ready["pid"].as_i64().unwrap()).unwrap();
    let kubeconfig = world.kubeconfig("demo");
    ok(&mut world.kubectl(&kubeconfig, &["create", "configmap", "kept", "--from-literal=a=b"]));
    until("another spare to be begun", || {
        let names = ok(&mut world.host_kubectl(&["get", "ns", "-L", "pilothouse.dev/cluster-name"]));
        if names.matches(" spare-").count() == 2 {
            return Ok(());
        }
        look_away();
        Err(names)
    });
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("the killed process to be gone", || {
        if kill(Pid::from_raw(pid), None).is_err() { Ok(()) } else { Err("alive".into()) }
    });
    world.start();
    let now = spares(&world, 2, &["demo"]);
    assert_eq!(ahead.iter().filter(|old| now.contains(old)).count(), 1, "one of {ahead:?} became demo: {now:?}");

    ok(&mut world.command(&["down"]));
    world.tell(&["--spares", "0"]);
    world.start();
    spares(&world, 0, &["demo"]);
    // Its gateway is at another port now, as it was asked for any.
    let kubeconfig = world.kubeconfig("demo");
    until("the data to be there", || {
        let words = ["get", "configmap", "kept", "-o", "jsonpath={.data.a}"];
        let output = world.kubectl(&kubeconfig, &words).output().unwrap();
        if output.stdout == b"b" { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    ok(&mut world.user(&["cluster", "delete", "demo", "--yes", "--wait"]));
    assert_eq!(spares(&world, 0, &[]), Vec::<String>::new());
    world.down();
}
