//! Join tokens in the hands of real agents: each on a machine of its own (another root directory: another machine-id and key).

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::world::{World, fails, ok, program, text};

/// What this build machine may fail that has nothing to do with tokens.
const IGNORED: &str = "ports,other-node,hostname,machine-id,disk,address";

/// A machine that has nothing but an identity.
struct Machine<'a> {
    world: &'a World,
    name: &'static str,
}

impl<'a> Machine<'a> {
    fn new(world: &'a World, name: &'static str) -> Self {
        let machine = Self { world, name };
        std::fs::create_dir_all(machine.root().join("etc")).unwrap();
        let id = format!("{:0<32}\n", name.bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
        std::fs::write(machine.root().join("etc/machine-id"), id).unwrap();
        machine
    }

    fn root(&self) -> PathBuf {
        self.world.scratch.at(self.name)
    }

    /// `pilothouse-node join` with this token.
    fn join(&self, token: &str) -> Command {
        let mut command = Command::new(program("pilothouse-node"));
        command.arg("--root").arg(self.root());
        command.args(["join", "--server", &self.world.field("gateway"), "--ca-file", &self.world.field("ca_file")]);
        command.args(["--node-name", self.name, "--ignore-preflight-errors", IGNORED]);
        command.env("PILOTHOUSE_JOIN_TOKEN", token);
        command
    }

    /// Nothing of the refused attempt is on the machine.
    fn is_not_a_node(&self) {
        let output =
            Command::new(program("pilothouse-node")).arg("--root").arg(self.root()).arg("status").output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("has not joined"), "{output:?}");
    }
}

/// A new token, and what else is told of it.
fn token(world: &World, cluster: &str, more: &[&str]) -> (String, Value) {
    let words = [&["node", "join-command", "--cluster", cluster, "-o", "json"], more].concat();
    let made: Value = serde_json::from_str(&ok(&mut world.user(&words))).unwrap();
    (made["token"].as_str().unwrap().to_owned(), made)
}

/// Wrong, used by another machine, used up, and a machine that is in already. Each refusal says what to do.
pub fn are_refused_by_name(world: &World, cluster: &str) {
    let (one, two, three) = (Machine::new(world, "one"), Machine::new(world, "two"), Machine::new(world, "three"));
    let (mine, _) = token(world, cluster, &[]);
    let bent = format!("{}{}", &mine[..mine.len() - 1], if mine.ends_with('A') { 'B' } else { 'A' });
    for wrong in [bent.as_str(), "pilothouse_join_nonsense", "nonsense"] {
        let (_, said) = fails(&mut one.join(wrong));
        assert!(said.contains("unknown join token") && said.contains("new join command"), "{said}");
        assert!(!said.contains(wrong) || wrong == "nonsense", "a token is told: {said}");
        one.is_not_a_node();
    }
    ok(&mut one.join(&mine));
    let (_, said) = fails(&mut two.join(&mine));
    assert!(said.contains("bound to another machine"), "{said}");
    two.is_not_a_node();
    // The same line pasted again on the same machine is no error, and takes nothing of the token.
    let again = one.join(&mine).output().unwrap();
    let said = text(&again.stderr);
    assert!(
        again.status.success() && said.contains("already is node one") && said.contains("not used again"),
        "{said}"
    );
    let (twice, _) = token(world, cluster, &["--max-uses", "2"]);
    let (_, said) = fails(&mut one.join(&twice));
    assert!(
        said.contains("already is node one") && said.contains("reset"),
        "another command is another request: {said}"
    );
    ok(&mut two.join(&twice));
    ok(&mut three.join(&twice));
    let (_, said) = fails(&mut Machine::new(world, "four").join(&twice));
    assert!(said.contains("no uses left"), "{said}");
}

/// A token of the shortest life, to be shown to a machine when that is over.
pub struct Mortal {
    token: String,
    expires_at: String,
}

impl Mortal {
    pub fn new(world: &World, cluster: &str) -> Self {
        let (token, made) = token(world, cluster, &["--expires-in", "1m"]);
        Self { token, expires_at: made["expires_at"].as_str().unwrap().to_owned() }
    }

    /// Waits for its end, and tries it.
    pub fn is_refused(&self, world: &World) {
        crate::world::until("the token's last second to pass", || {
            let now = time::OffsetDateTime::now_utc();
            let end = time::OffsetDateTime::parse(&self.expires_at, &time::format_description::well_known::Rfc3339);
            if now > end.unwrap() { Ok(()) } else { Err(format!("{now}, {}", self.expires_at)) }
        });
        let late = Machine::new(world, "late");
        let (_, said) = fails(&mut late.join(&self.token));
        assert!(said.contains("expired") && said.contains("new join command"), "{said}");
        late.is_not_a_node();
    }
}
