//! What breaks, breaks with a clear word, and nothing is lost.

use std::net::TcpListener;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{World, fails, ok, pilothouse, until};

/// Refusals before anything is changed; none of these needs a running platform.
#[test]
fn story_bad_input_changes_nothing() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let data = dir.path().join("d");
    let up = |words: &[&str]| {
        let mut command = pilothouse();
        command.args(["up", "--data-dir", data.to_str().unwrap()]).args(words);
        command
    };
    let (_, text) = fails(&mut up(&["--name", "Not_A_Label"]));
    assert!(text.contains("not valid") && text.contains("a-z"), "{text}");
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_, text) = fails(&mut up(&["--name", "bad", "--listen", &held.local_addr().unwrap().to_string()]));
    let root = nix::unistd::geteuid().is_root();
    assert!(if root { text.contains("is the port taken") } else { text.contains("not root") }, "{text}");
    std::fs::create_dir_all(&data).unwrap();
    let record = r#"{"name":"other","slot":0,"listen":"127.0.0.1:1","advertise":"127.0.0.1:1","portal":"127.0.0.1:2","domain":"x"}"#;
    std::fs::write(data.join("instance.json"), record).unwrap();
    let (_, text) = fails(&mut up(&["--name", "bad"]));
    assert!(text.contains("belongs to the instance \"other\""), "{text}");
    let (_, text) = fails(pilothouse().args(["bundle", "build", "--version", "1.2.3"]));
    assert!(text.contains("1.2.3") && text.contains("1.36.3"), "{text}");
}

/// kill -9 of `up` while a cluster is being created, then `up` again: one cluster, ready. Then its processes are killed.
#[test]
fn story_kill_and_resume() {
    let Some(mut world) = World::up("kill") else { return };
    ok(&mut world.user(&["cluster", "create", "demo"]));
    let pid = i32::try_from(world.ready["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("the killed process to be gone", 10, || {
        if kill(Pid::from_raw(pid), None).is_err() { Ok(()) } else { Err("alive".into()) }
    });
    world.start();
    until("the cluster to run", 60, || {
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
        until("the data to be back", 90, || {
            let output =
                world.kubectl(&kubeconfig, &["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).output().unwrap();
            if output.stdout == b"b" { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        });
    }
    let text = ok(&mut world.command(&["doctor"]));
    assert!(text.contains("forbidden connections") && text.contains("0 failed"), "{text}");
    world.down();
}

/// Another organization's ids answer 404, names and versions are checked, tokens too.
#[test]
fn story_refusals_of_a_running_platform() {
    let Some(world) = World::up("deny") else { return };
    for (name, word) in
        [("Upper", "lower"), ("-a", "begin"), ("this-name-is-much-longer-than-a-cluster-may-have", "40")]
    {
        let (code, text) = fails(&mut world.user(&["cluster", "create", "--", name]));
        assert!(code.is_some() && text.to_lowercase().contains(word), "{name}: {text}");
    }
    let (_, text) = fails(&mut world.user(&["cluster", "create", "demo", "--version", "1.9.9"]));
    assert!(text.contains("1.9.9") && text.contains("1.36.3"), "{text}");
    let (code, text) = fails(&mut world.user(&["cluster", "get", "cls_01arz3ndektsv4rrffq69g5fav"]));
    assert_eq!(code, Some(3), "{text}");
    let (code, _) = fails(world.user(&["cluster", "list"]).env("PILOTHOUSE_TOKEN", "pilothouse_nonsense"));
    assert_eq!(code, Some(4));
    world.down();
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
    let before = world.nodes(&kubeconfig, 1, 30);
    let pid = machine_init(&world).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("the machine to run again", 90, || {
        machine_init(&world).filter(|again| *again != pid).ok_or("no process 1".to_owned())
    });
    until("a pod to run on it", 90, || {
        let words = [
            "run",
            "again",
            "--image=pilothouse.local/busybox:1.35.0",
            "--image-pull-policy=Never",
            "--restart=Never",
            "--",
            "sleep",
            "600",
        ];
        world.kubectl(&kubeconfig, &words).output().unwrap();
        let output = world.kubectl(&kubeconfig, &["exec", "again", "--", "hostname"]).output().unwrap();
        if output.stdout == b"again\n" { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    assert_eq!(world.nodes(&kubeconfig, 1, 60), before, "the same node");
    ok(&mut world.user(&["pool", "scale", "web", "--count", "10", "--cluster", "demo", "--wait"]));
    assert!(world.nodes(&kubeconfig, 10, 120).contains(&before[0]));
    ok(&mut world.user(&["cluster", "delete", "demo", "--yes", "--wait"]));
    world.down();
}
