//! Two platforms on one machine, and a third that uses the first one's host as its own.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::scratch::platform_dir;
use crate::world::{NO_SPARES, World, ok, pilothouse};

/// An instance beside the story's own, taken down with it.
struct Beside {
    name: String,
    dir: PathBuf,
    ready: Value,
    /// What comes before the program's own words: another user's shoes.
    shoes: Vec<String>,
    /// Not theirs, where they are another user's: so `sudo -u` and `setpriv` leave it.
    home: PathBuf,
}

impl Beside {
    fn new(world: &World, story: &str, shoes: Vec<String>) -> Self {
        let name = format!("{story}{}", std::process::id() % 10000);
        let mut platforms = OpenOptions::new().append(true).open(world.scratch.at("platforms")).unwrap();
        writeln!(platforms, "{name}").unwrap();
        Self { dir: platform_dir(&name), name, ready: Value::Null, shoes, home: world.scratch.home() }
    }

    fn up(self, more: &[&str]) -> Self {
        let mut beside = self;
        let words = [&["up", "--detach", "--output", "json", "--listen", "0.0.0.0:0"], more].concat();
        beside.ready = serde_json::from_str(ok(&mut beside.command(&words)).lines().last().unwrap()).unwrap();
        beside
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = match self.shoes.split_first() {
            None => pilothouse(),
            Some((first, others)) => {
                let mut command = std::process::Command::new(first);
                command.args(others).current_dir("/").env("HOME", &self.home);
                command
            }
        };
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
                .env("HOME", &self.home))
        };
        user(&["cluster", "create", cluster, "--wait"]);
        let path = world.scratch.at("beside.kubeconfig");
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

/// A user who may do nothing, with the program where they may run it and the host's kubeconfig where they may read it.
struct Nobody {
    program: PathBuf,
    file: PathBuf,
    uid: u32,
    gid: u32,
}

impl Nobody {
    fn new(world: &World) -> Self {
        let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        let (program, file) = (world.scratch.at("pilothouse"), world.scratch.at("host.kubeconfig"));
        std::fs::copy(env!("CARGO_BIN_EXE_pilothouse"), &program).unwrap();
        std::fs::copy(world.dir.join("host/pki/operator.kubeconfig"), &file).unwrap();
        chown(&file, Some(uid), Some(gid)).unwrap();
        Self { program, file, uid, gid }
    }

    fn shoes(&self) -> Vec<String> {
        let (uid, gid) = (self.uid.to_string(), self.gid.to_string());
        let words =
            ["setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups", "--", self.program.to_str().unwrap()];
        words.map(str::to_owned).into()
    }

    /// Makes a directory that is theirs, as an administrator would.
    fn owns(&self, dir: &Path) {
        std::fs::create_dir(dir).unwrap();
        chown(dir, Some(self.uid), Some(self.gid)).unwrap();
    }
}

#[test]
fn story_neighbours() {
    let Some(world) = World::up("near") else { return };
    ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    let kubeconfig = world.kubeconfig("demo");

    // An existing cluster as host needs no root, and no bundle of its own where root has built one.
    let nobody = Nobody::new(&world);
    let guest = Beside::new(&world, "guest", nobody.shoes());
    nobody.owns(&guest.dir);
    let guest = guest.up(&["--host-kubeconfig", nobody.file.to_str().unwrap()]);
    assert_eq!(std::fs::metadata(guest.dir.join("kek")).unwrap().uid(), nobody.uid);
    assert!(guest.namespaces(&world, "demo").contains("kube-system"));
    guest.down();

    let other = Beside::new(&world, "other", Vec::new()).up(&NO_SPARES);
    assert!(other.namespaces(&world, "demo").contains("kube-system"));
    other.down();

    assert!(ok(&mut world.kubectl(&kubeconfig, &["get", "ns"])).contains("kube-system"), "the first one goes on");
    ok(&mut world.user(&["cluster", "delete", "demo", "--yes", "--wait"]));
    world.down();
}
