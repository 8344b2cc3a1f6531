//! Two platforms on one machine, and a third that uses the first one's host as its own.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

use crate::scratch::platform_dir;
use crate::world::{World, ok, pilothouse};

/// An instance beside the story's own, taken down with it.
struct Beside {
    name: String,
    dir: PathBuf,
    ready: Value,
}

impl Beside {
    fn up(world: &World, story: &str, more: &[&str]) -> Self {
        let name = format!("{story}{}", std::process::id() % 10000);
        let mut platforms = OpenOptions::new().append(true).open(world.scratch.at("platforms")).unwrap();
        writeln!(platforms, "{name}").unwrap();
        let mut beside = Self { dir: platform_dir(&name), name, ready: Value::Null };
        let words = [&["up", "--detach", "--output", "json", "--listen", "0.0.0.0:0"], more].concat();
        beside.ready = serde_json::from_str(ok(&mut beside.command(&words)).lines().last().unwrap()).unwrap();
        beside
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = pilothouse();
        command.args(words).args(["--name", &self.name, "--data-dir", self.dir.to_str().unwrap()]);
        command
    }

    /// Creates a cluster here and looks into it with a real kubectl.
    fn namespaces(&self, world: &World, cluster: &str) -> String {
        let token = ok(&mut self.command(&["admin", "token"]));
        let field = |name: &str| self.ready[name].as_str().unwrap().to_owned();
        let user = |words: &[&str]| {
            let mut command = pilothouse();
            command.args(words).env("PILOTHOUSE_SERVER", format!("https://{}", field("gateway")));
            ok(command
                .env("PILOTHOUSE_TOKEN", token.trim())
                .env("PILOTHOUSE_CA_FILE", field("ca_file"))
                .env("HOME", "/nonexistent"))
        };
        user(&["cluster", "create", cluster, "--wait"]);
        let path = self.dir.join("kubeconfig");
        std::fs::write(&path, user(&["kubeconfig", cluster])).unwrap();
        let seen = ok(&mut world.kubectl(&path, &["get", "ns"]));
        user(&["cluster", "delete", cluster, "--yes", "--wait"]);
        seen
    }

    fn down(self) {
        ok(&mut self.command(&["down", "--purge", "--yes"]));
        assert!(!self.dir.exists());
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.dir.exists() {
            self.command(&["down", "--purge", "--yes"]).output().ok();
        }
    }
}

#[test]
fn story_neighbours() {
    let Some(world) = World::up("near") else { return };
    ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    let kubeconfig = world.kubeconfig("demo");

    let guest = Beside::up(
        &world,
        "guest",
        &["--host-kubeconfig", world.dir.join("host/pki/operator.kubeconfig").to_str().unwrap()],
    );
    assert!(guest.namespaces(&world, "demo").contains("kube-system"));
    guest.down();

    let other = Beside::up(&world, "other", &[]);
    assert!(other.namespaces(&world, "demo").contains("kube-system"));
    other.down();

    assert!(ok(&mut world.kubectl(&kubeconfig, &["get", "ns"])).contains("kube-system"), "the first one goes on");
    ok(&mut world.user(&["cluster", "delete", "demo", "--yes", "--wait"]));
    world.down();
}
