//! What breaks, breaks with a clear word, and nothing is lost.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use serde_json::json;

use crate::world::{World, ok, until};

/// kill -9 of `up` while a cluster is being created, then `up` again: one cluster, ready. Then its processes are killed.
#[test]
fn story_kill_and_resume() {
    let Some(mut world) = World::up("kill") else { return };
    ok(&mut world.user(&["cluster", "create", "demo"]));
    let pid = i32::try_from(world.ready["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("the killed process to be gone", || {
        if kill(Pid::from_raw(pid), None).is_err() { Ok(()) } else { Err("alive".into()) }
    });
    unwire(&world);
    world.start();
    until("the cluster to run", || {
        let text = ok(&mut world.user(&["cluster", "get", "demo", "-o", "json"]));
        if text.contains("\"running\"") { Ok(()) } else { Err(text) }
    });
    let namespaces = ok(&mut world.host_kubectl(&["get", "ns", "-o", "name"]));
    assert_eq!(namespaces.matches("namespace/ph-").count(), 1, "no twin: {namespaces}");
    let kubeconfig = world.kubeconfig("demo");
    ok(&mut world.kubectl(&kubeconfig, &["create", "configmap", "kept", "--from-literal=a=b"]));
    for component in ["control-plane", "etcd"] {
        let selector = format!("pilothouse.dev/component={component}");
        ok(&mut world.host_kubectl(&["delete", "pods", "-A", "-l", &selector, "--wait=true"]));
        until("the data to be back", || {
            let output =
                world.kubectl(&kubeconfig, &["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).output().unwrap();
            if output.stdout == b"b" { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        });
    }
    let text = ok(&mut world.command(&["doctor"]));
    assert!(text.contains("forbidden connections") && text.contains("0 failed"), "{text}");
    world.down();
}

/// The embedded host's network as `up` leaves it when it is killed while it makes it.
fn unwire(world: &World) {
    let netns = format!("--net=/run/pilothouse/{}/netns", world.name);
    for order in [["link", "set", "lo", "down"], ["address", "flush", "dev", "uplink"]] {
        ok(Command::new("nsenter").args([netns.as_str(), "ip"]).args(order));
    }
}

/// The first process of a machine container, by its cgroup: the one that is number 1 inside.
fn machine_init(world: &World) -> Option<i32> {
    let root = if std::path::Path::new("/sys/fs/cgroup/unified").exists() {
        "/sys/fs/cgroup/unified"
    } else {
        "/sys/fs/cgroup"
    };
    let mut dirs = vec![std::path::PathBuf::from(root).join(format!("pilothouse-{}/machines", world.name))];
    while let Some(dir) = dirs.pop() {
        for line in std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
            let status = std::fs::read_to_string(format!("/proc/{line}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            if numbers.split_whitespace().collect::<Vec<_>>()[1..] == ["1"] {
                return line.parse().ok();
            }
        }
        dirs.extend(
            std::fs::read_dir(&dir)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_dir()),
        );
    }
    None
}

/// A machine that dies comes back as the same node; one that is removed does not. Ten are made at once.
#[test]
fn story_machines_come_back() {
    let Some(world) = World::up("mach") else { return };
    ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    let kubeconfig = world.kubeconfig("demo");
    ok(&mut world.user(&["pool", "create", "web", "--cluster", "demo", "--kind", "local", "--count", "1", "--wait"]));
    let before = world.nodes(&kubeconfig, "web-", 1);
    let pid = machine_init(&world).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("the machine to run again", || {
        machine_init(&world).filter(|again| *again != pid).ok_or("no process 1".to_owned())
    });
    world.sleeper(&kubeconfig, "again", (json!({}), json!({})));
    assert_eq!(world.nodes(&kubeconfig, "web-", 1), before, "the same node");
    ok(&mut world.user(&["pool", "scale", "web", "--count", "10", "--cluster", "demo", "--wait"]));
    assert!(world.nodes(&kubeconfig, "web-", 10).contains(&before[0]));
    ok(&mut world.user(&["cluster", "delete", "demo", "--yes", "--wait"]));
    world.down();
}
