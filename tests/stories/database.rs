//! PostgreSQL as the memory, and what goes on while it is gone: kubectl does, the platform says so and recovers.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::scratch::Scratch;
use crate::world::{World, ok, until};

/// A server of the story's own, as the user that Debian made for it: PostgreSQL refuses to run as root.
struct Postgres {
    dir: Scratch,
    port: u16,
}

fn programs() -> PathBuf {
    let mut versions: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    versions.pop().unwrap()
}

impl Postgres {
    fn start() -> Self {
        let dir = Scratch::new(&format!("db{}", std::process::id() % 10000));
        let user = nix::unistd::User::from_name("postgres").unwrap().unwrap();
        chown(&dir.dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        std::fs::set_permissions(&dir.dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { dir, port };
        let data = server.data();
        ok(server.run("initdb").args(["-D", &data, "-A", "trust", "-U", "postgres", "--no-sync"]));
        server.control("start");
        server
    }

    fn data(&self) -> String {
        self.dir.dir.join("data").display().to_string()
    }

    fn run(&self, program: &str) -> Command {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(programs().join(program)).current_dir(Path::new("/"));
        command
    }

    fn control(&self, word: &str) {
        let options = format!("-p {} -k {} -c listen_addresses=127.0.0.1", self.port, self.dir.dir.display());
        let log = self.dir.dir.join("log").display().to_string();
        ok(self.run("pg_ctl").args(["-w", "-m", "fast", "-D", &self.data(), "-l", &log, "-o", &options, word]));
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.run("pg_ctl").args(["-m", "immediate", "-D", &self.data(), "stop"]).output().ok();
    }
}

#[test]
fn story_database_gone() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let database = Postgres::start();
    let url = database.url();
    let Some(world) = World::up_with("pg", &["--database-url", &url]) else { return };
    ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    let kubeconfig = world.kubeconfig("demo");

    database.control("stop");
    let gone = Instant::now();
    let output = world.user(&["cluster", "list"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("database"), "{said}");
    while gone.elapsed() < Duration::from_secs(30) {
        ok(&mut world.kubectl(&kubeconfig, &["get", "ns"]));
        std::thread::sleep(Duration::from_secs(1));
    }
    database.control("start");
    until("the platform to answer again", || {
        let output = world.user(&["cluster", "list", "-o", "name"]).output().unwrap();
        let seen =
            String::from_utf8_lossy(&output.stdout).into_owned() + String::from_utf8_lossy(&output.stderr).as_ref();
        if output.status.success() { Ok(()) } else { Err(seen) }
    });
    ok(&mut world.user(&["cluster", "create", "after", "--wait"]));
    world.down();
}
