//! The README's tour, in its very words: from nothing to a shell in a pod on a machine, and back to nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use crate::world::{World, fails, ok, until};

#[test]
fn story_tour() {
    let Some(world) = World::up("tour") else { return };
    let created = ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    assert!(created.contains("demo"), "{created}");
    let kubeconfig = world.kubeconfig("demo");
    let namespaces = ok(&mut world.kubectl(&kubeconfig, &["get", "ns"]));
    assert!(namespaces.contains("kube-system"), "{namespaces}");
    let version = ok(&mut world.kubectl(&kubeconfig, &["version"]));
    assert!(version.contains("Server Version: v1.36.3"), "{version}");

    ok(&mut world.user(&["pool", "create", "web", "--cluster", "demo", "--kind", "local", "--count", "1", "--wait"]));
    let nodes = world.nodes(&kubeconfig, 1, 30);
    assert!(nodes[0].starts_with("web-"), "{nodes:?}");
    let dns = world.pod(&kubeconfig, "kube-system", "k8s-app=kube-dns");
    through_the_tunnel(&world, &kubeconfig, &dns);

    let line = ok(&mut world.user(&["node", "join-command", "--cluster", "demo"]));
    assert_eq!(line.trim().lines().count(), 1, "{line}");
    let (_, taken) = fails(&mut world.user(&["cluster", "create", "demo"]));
    assert!(taken.contains("demo") && taken.contains("taken"), "{taken}");

    ok(&mut world.user(&["cluster", "delete", "demo", "--yes", "--wait"]));
    let left = ok(&mut world.host_kubectl(&["get", "ns", "-o", "name"]));
    assert!(!left.contains("namespace/ph-"), "{left}");
    assert_eq!(std::fs::read_dir(world.dir.join("machines")).map(|all| all.count()).unwrap_or(0), 0);
    world.down();
}

/// logs, exec, attach's stream, cp and port-forward on a machine that nothing can dial.
fn through_the_tunnel(world: &World, kubeconfig: &std::path::Path, pod: &str) {
    let logs = until("logs", 20, || {
        let output = world.kubectl(kubeconfig, &["logs", "-n", "kube-system", pod]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("CoreDNS") { Ok(text) } else { Err(text + &String::from_utf8_lossy(&output.stderr)) }
    });
    assert!(logs.contains("CoreDNS-1.15.0"), "{logs}");
    let version = ok(&mut world.kubectl(kubeconfig, &["exec", "-n", "kube-system", pod, "--", "coredns", "-version"]));
    assert!(version.contains("CoreDNS-1.15.0"), "{version}");
    let mut forward = world
        .kubectl(kubeconfig, &["port-forward", "-n", "kube-system", pod, ":8080"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Kept open: kubectl goes on printing, and would end at a closed pipe.
    let mut output = BufReader::new(forward.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let port: u16 =
        line.split(':').nth(1).and_then(|rest| rest.split(' ').next()).and_then(|port| port.parse().ok()).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
    // kubectl may end the local connection with a reset once the answer is through: what was read counts.
    let (mut answer, mut buffer) = (String::new(), [0; 512]);
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        answer.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    forward.kill().unwrap();
    forward.wait().unwrap();
    assert!(answer.contains("200 OK") && answer.ends_with("OK"), "{answer}");
}
