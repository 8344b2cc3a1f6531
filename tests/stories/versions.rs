//! Two minors of Kubernetes beside each other: a cluster of the older one has the older one's programs, nodes included, and nodes of the older
//! one join a cluster of the newer.

use crate::world::{World, fails, ok, until};

const OLDER: &str = "1.35.4";

/// Of `./test full`: takes minutes more where the older bundle was never built; it is kept in the cache.
#[test]
fn story_an_older_kubernetes() {
    let Some(world) = World::up_with("vers", &["--with-version", OLDER, "--spares", "0"]) else { return };
    ok(&mut world.user(&["cluster", "create", "older", "--version", OLDER, "--wait"]));
    ok(&mut world.user(&["cluster", "create", "newer", "--wait"]));
    for (cluster, version) in [("older", "v1.35.4"), ("newer", "v1.36.3")] {
        let kubeconfig = world.kubeconfig(cluster);
        let said = ok(&mut world.kubectl(&kubeconfig, &["version"]));
        assert!(said.contains(&format!("Server Version: {version}")), "{said}");
        ok(&mut world.user(&[
            "pool",
            "create",
            "web",
            "--cluster",
            cluster,
            "--kind",
            "local",
            "--count",
            "1",
            "--wait",
        ]));
        let node = world.nodes(&kubeconfig, "web-", 1).remove(0);
        let template = "jsonpath={.status.nodeInfo.kubeletVersion}";
        until("the kubelet's version", || {
            let seen = ok(&mut world.kubectl(&kubeconfig, &["get", "node", &node, "-o", template]));
            if seen == version { Ok(()) } else { Err(seen) }
        });
        crate::tunnel::reaches(&world, &kubeconfig, &node);
    }
    an_older_node_joins_a_newer_cluster(&world);
    for cluster in ["older", "newer"] {
        ok(&mut world.user(&["cluster", "delete", cluster, "--yes", "--wait"]));
    }
    world.down();
}

/// Within Kubernetes' version skew policy.
fn an_older_node_joins_a_newer_cluster(world: &World) {
    let kubeconfig = world.kubeconfig("newer");
    let pool = ["pool", "create", "old", "--cluster", "newer", "--kind", "local", "--version", OLDER, "--wait"];
    ok(&mut world.user(&pool));
    let node = world.nodes(&kubeconfig, "old-", 1).remove(0);
    let template = "jsonpath={.status.nodeInfo.kubeletVersion}";
    until("the kubelet's version", || {
        let seen = ok(&mut world.kubectl(&kubeconfig, &["get", "node", &node, "-o", template]));
        if seen == format!("v{OLDER}") { Ok(()) } else { Err(seen) }
    });
    crate::tunnel::reaches(world, &kubeconfig, &node);
    let pool = ["pool", "create", "new", "--cluster", "older", "--kind", "local", "--version", "1.36.3"];
    let (_, said) = fails(&mut world.user(&pool));
    assert!(said.contains("are newer than their control plane"), "{said}");
}
