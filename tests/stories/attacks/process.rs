//! Attacks on a running platform: process. Another user of the machine, and an administrator's shell that is not as others are.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::world::{World, fails, ok, text, until};

/// A tight mask, a user's search path (`su` without `-`), and a proxy that leads nowhere.
const SHELL: &str = "umask 077; export PATH=$(printf %s \"$PATH\" | tr : '\\n' | grep -v sbin | paste -sd :) \
                     HTTPS_PROXY=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9;";

/// Below it no cluster has its user.
const FIRST_USER: u32 = 1_879_100_000;

/// What another user of the machine sees of a command.
fn nobody(line: &str) -> (bool, String) {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--", "bash", "-c", line]);
    let output = command.output().unwrap();
    (output.status.success(), text(&output.stdout) + text(&output.stderr).as_str())
}

fn refused(line: &str) {
    let (success, said) = nobody(line);
    assert!(!success, "another user may `{line}`: {said}");
}

fn modes_are_tight(dir: &Path) {
    let mode = |path: &str| std::fs::metadata(dir.join(path)).unwrap().permissions().mode() & 0o777;
    for (path, expected) in [("", 0o700), ("run", 0o700), ("run/lock", 0o600), ("kek", 0o600), ("pilothouse.db", 0o600)]
    {
        assert_eq!(mode(path), expected, "{path}");
    }
    for log in std::fs::read_dir(dir.join("logs")).unwrap().flatten() {
        let mode = log.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o027, 0, "{} is {mode:o}", log.path().display());
    }
}

/// The address and the user of a cluster's pod.
fn pod(world: &World, component: &str) -> (String, u32) {
    let label = format!("pilothouse.dev/component={component}");
    let path = "jsonpath={.items[0].status.podIP} {.items[0].spec.securityContext.runAsUser}";
    let said = ok(&mut world.host_kubectl(&["get", "pods", "-A", "-l", &label, "-o", path]));
    let (address, user) = said.split_once(' ').unwrap();
    (address.to_owned(), user.parse().unwrap())
}

#[test]
fn story_attack_process() {
    let Some(mut world) = World::up_from("attackproc", SHELL) else { return };
    ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    let kubeconfig = world.kubeconfig("demo");
    assert!(ok(&mut world.kubectl(&kubeconfig, &["get", "ns"])).contains("kube-system"));
    modes_are_tight(&world.dir);

    // Another user of this machine.
    let dir = world.dir.display().to_string();
    refused(&format!("ls {dir}"));
    refused(&format!("cat {dir}/logs/pilothouse.log"));
    refused(&format!("cat {dir}/instance.json"));
    refused(&format!("flock --nonblock {dir}/run/lock true"));
    let ((etcd, etcd_user), (api, api_user)) = (pod(&world, "etcd"), pod(&world, "control-plane"));
    let dial = |address: &str, port: u16| format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
    assert!(nobody(&dial(&api, 6443)).0, "a probe that reaches nothing proves nothing");
    for port in [2379, 2381] {
        refused(&dial(&etcd, port));
    }
    let host = ok(&mut world.host_kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].status.addresses[0].address}"]));
    for port in [10250, 10256] {
        refused(&dial(&host, port));
    }

    // And still the platform knows whether etcd takes writes.
    until("the datastore's condition", || {
        let seen = ok(&mut world.user(&["cluster", "get", "demo", "-o", "json"]));
        let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
        let mut conditions = seen["conditions"].as_array().unwrap().iter();
        match conditions.find(|condition| condition["type"] == "DatastoreWritable") {
            Some(condition) if condition["status"] == "True" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    // A user of its own, also on the disk.
    assert!(etcd_user == api_user && etcd_user >= FIRST_USER, "{etcd_user} and {api_user}");
    let volumes = std::fs::read_dir(world.dir.join("volumes")).unwrap().flatten();
    let owners: Vec<u32> =
        volumes.filter_map(|volume| Some(std::fs::metadata(volume.path().join("data")).ok()?.uid())).collect();
    assert_eq!(owners, [etcd_user]);

    // A new key-encryption key: not beside a running platform, and then for everything.
    let rotate = ["admin", "kek", "rotate"];
    let (_, why) = fails(&mut world.command(&rotate));
    assert!(why.contains("end the process of `pilothouse up` first"), "{why}");
    let before = std::fs::read(world.dir.join("kek")).unwrap();
    ok(&mut world.command(&["down"]));
    ok(&mut world.command(&rotate));
    assert_ne!(std::fs::read(world.dir.join("kek")).unwrap(), before);
    world.start();
    // The platform has another port now: a new file, whose making opens the sealed keys.
    let kubeconfig = world.kubeconfig("demo");
    assert!(ok(&mut world.kubectl(&kubeconfig, &["get", "ns"])).contains("kube-system"));
    world.down();
}
