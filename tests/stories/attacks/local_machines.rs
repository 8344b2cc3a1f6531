//! An editor reaches for the platform's own machine through a local one: the gate is the wall, because whoever is no admin gets no
//! kubeconfig with which a privileged pod could be made there.

use crate::world::{World, fails, ok};

#[test]
fn story_attack_local_machines() {
    let Some(world) = World::up("attacklocal") else { return };
    assert_eq!(world.field("local_machines"), "trusted");
    for words in [
        &["cluster", "create", "demo", "--wait"][..],
        &["pool", "create", "web", "--cluster", "demo", "--kind", "local", "--count", "1", "--wait"],
    ] {
        ok(&mut world.user(words));
    }
    let editor = ok(&mut world.user(&["token", "create", "editor", "--role", "editor", "-q"]));
    let issue = |role: &str| {
        let mut command = world.user(&["kubeconfig", "demo", "--role", role]);
        command.env("PILOTHOUSE_TOKEN", editor.trim());
        command
    };
    for role in ["edit", "admin"] {
        let (_, said) = fails(&mut issue(role));
        assert!(said.to_lowercase().contains("share the kernel"), "{said}");
    }
    ok(&mut issue("view"));
    world.nodes(&world.kubeconfig("demo"), "web-", 1);
    world.down();
}
