//! The README's tour, in its very words: from nothing to a shell in a pod, on a machine of the platform's and on one of its
//! owner's, and back to nothing. While the owner's machine boots and reboots, the story goes on elsewhere.

use std::path::PathBuf;

use crate::leftovers::readable_with;
use crate::own_machine::OwnMachine;
use crate::world::{World, fails, ok};
use crate::{browser, tokens, tunnel};

#[test]
fn story_tour() {
    let Some(world) = World::up_with("tour", &[]) else { return };
    let link = world.field("setup_url");
    let secret = &link[link.find("/setup/").unwrap()..];
    assert_eq!(readable_with(&world.dir, secret), Vec::<PathBuf>::new(), "the setup link is for its owner only");
    let created = ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    assert!(created.contains("demo"), "{created}");
    // As a person at a terminal does it.
    let typed = r#"eval "$("$0" admin env --name "$1" --data-dir "$2")" && exec "$0" cluster list -o name"#;
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", typed, env!("CARGO_BIN_EXE_pilothouse"), &world.name])
        .arg(&world.dir)
        .env("HOME", world.scratch.home());
    assert!(ok(&mut shell).contains("demo"));
    let kubeconfig = world.kubeconfig("demo");
    let namespaces = ok(&mut world.kubectl(&kubeconfig, &["get", "ns"]));
    assert!(namespaces.contains("kube-system"), "{namespaces}");
    let version = ok(&mut world.kubectl(&kubeconfig, &["version"]));
    assert!(version.contains("Server Version: v1.36.3"), "{version}");

    ok(&mut world.user(&["pool", "create", "web", "--cluster", "demo", "--kind", "local", "--count", "1", "--wait"]));
    let machine = OwnMachine::boot(&world, "demo");
    let mortal = tokens::Mortal::new(&world, "demo");
    let local = world.nodes(&kubeconfig, "web-", 1).remove(0);
    let dns = world.pod(&kubeconfig, "kube-system", "k8s-app=kube-dns");
    let said = ok(&mut world.kubectl(&kubeconfig, &["exec", "-n", "kube-system", &dns, "--", "coredns", "-version"]));
    assert!(said.contains("CoreDNS-1.15.0"), "{said}");
    tunnel::forwards(&world, &kubeconfig, &dns);
    tunnel::reaches(&world, &kubeconfig, &local);
    let line = ok(&mut world.user(&["node", "join-command", "--cluster", "demo"]));
    assert_eq!(line.trim().lines().count(), 1, "{line}");
    let (_, taken) = fails(&mut world.user(&["cluster", "create", "demo"]));
    assert!(taken.contains("demo") && taken.contains("already used"), "{taken}");
    mortal.is_refused(&world);

    let own = machine.joined(&world, &kubeconfig);
    tunnel::reaches(&world, &kubeconfig, &own);
    machine.outlives_its_agent(&world, &kubeconfig);
    let boot = machine.reboot(&world, &kubeconfig);
    browser::tours(&world);
    machine.is_back(&world, &kubeconfig, &boot);
    ok(&mut world.user(&["node", "remove", &own, "--cluster", "demo", "--yes", "--wait"]));
    let left = ok(&mut world.kubectl(&kubeconfig, &["get", "nodes", "-o", "name"]));
    assert_eq!(left.trim(), format!("node/{local}"));
    drop(machine);

    ok(&mut world.user(&["cluster", "delete", "demo", "--yes", "--wait"]));
    let left = ok(&mut world.host_kubectl(&["get", "ns", "-L", "pilothouse.dev/cluster-name"]));
    assert!(!left.contains(" demo"), "{left}");
    assert_eq!(std::fs::read_dir(world.dir.join("machines")).map(|all| all.count()).unwrap_or(0), 0);
    world.down();
}
