//! One platform of its own for each story, removed at the end also when the story fails.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::scratch::{Scratch, platform_dir};

/// The longest a condition may take to come, in seconds: for a machine that does ten other things meanwhile. It ends a story
/// whose condition never comes; it measures nothing.
const PATIENCE: u64 = 300;
/// The small image that every node has.
pub const BUSYBOX: &str = "pilothouse.local/busybox:1.35.0";

/// Told to `up` where a story is about making clusters, or counts what is there.
pub const NO_SPARES: [&str; 2] = ["--spares", "0"];

/// Two platforms at once would fit, but not on two cores with figures worth reading.
static ALONE: Mutex<()> = Mutex::new(());

pub struct World {
    pub name: String,
    pub dir: PathBuf,
    pub ready: Value,
    pub token: String,
    pub before: crate::leftovers::Snapshot,
    pub scratch: Scratch,
    /// What every `up` of it is told besides.
    words: Vec<String>,
    /// What a shell does before every `up` of it.
    shell: String,
    begun: Instant,
    _alone: MutexGuard<'static, ()>,
}

/// The program under test.
pub fn pilothouse() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pilothouse"));
    command.stdin(Stdio::null()).env_remove("PILOTHOUSE_TOKEN");
    command
}

/// A program of the default bundle.
pub fn program(name: &str) -> PathBuf {
    bundle::Bundle::locate(bundle::Version::default()).unwrap().program(name).unwrap()
}

pub fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The exit code and what was said on standard error.
pub fn fails(command: &mut Command) -> (Option<i32>, String) {
    let output: Output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?} succeeded: {}", text(&output.stdout));
    (output.status.code(), text(&output.stderr))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Fails without root, which real parts need: a run that proved nothing must not look like one that did. `PILOTHOUSE_SKIP_ROOT=1` lets
/// a story be skipped, and that is said.
pub fn is_root(story: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(
            std::env::var_os("PILOTHOUSE_SKIP_ROOT").is_some(),
            "{story} needs root; PILOTHOUSE_SKIP_ROOT=1 skips it"
        );
        eprintln!("NOT RUN: {story}: stories on real parts need root");
    }
    root
}

/// Waits for a condition of the world; says what was seen last when it does not come.
pub fn until<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, look)
}

/// [`until`], with a bound of its own.
pub fn within<T>(seconds: u64, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > end => panic!("{what}: not within {seconds} s; last seen: {seen}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

impl World {
    /// Makes sure of the default bundle, as `up` would, without a platform.
    pub fn with_bundle() {
        ok(pilothouse().args(["bundle", "build"]));
    }

    /// `up`, and a token of the operator; every cluster is made from nothing. Skipped (None) where the machine cannot host: not root.
    pub fn up(story: &str) -> Option<Self> {
        Self::up_with(story, &NO_SPARES)
    }

    /// [`World::up`], from a shell that did this before.
    pub fn up_from(story: &str, shell: &str) -> Option<Self> {
        Self::begin(story, &NO_SPARES, shell)
    }

    /// [`World::up`], with just these words more for every `up`.
    pub fn up_with(story: &str, more: &[&str]) -> Option<Self> {
        Self::begin(story, more, "")
    }

    fn begin(story: &str, more: &[&str], shell: &str) -> Option<Self> {
        if !is_root(story) {
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{story}{}", std::process::id() % 10000);
        let dir = platform_dir(&name);
        let scratch = Scratch::new(&name);
        std::fs::write(scratch.at("platforms"), format!("{name}\n")).unwrap();
        let before = crate::leftovers::Snapshot::take();
        let (ready, token, words) = (Value::Null, String::new(), Vec::new());
        let shell = shell.to_owned();
        let begun = Instant::now();
        let mut world = Self { name, dir, ready, token, before, scratch, words, shell, begun, _alone: alone };
        world.tell(more);
        world.start();
        world.token = ok(&mut world.command(&["admin", "token"])).trim().to_owned();
        Some(world)
    }

    /// What every further `up` is told besides.
    pub fn tell(&mut self, words: &[&str]) {
        self.words = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// `up --detach`, in the tour's words.
    pub fn start(&mut self) {
        let mut up = self.command(&["up", "--detach", "--output", "json", "--listen", "0.0.0.0:0"]);
        up.args(&self.words);
        let mut by_shell = Command::new("sh");
        by_shell.args(["-c", &format!("{} exec \"$@\"", self.shell), "sh"]).arg(up.get_program()).args(up.get_args());
        let out = ok(by_shell.stdin(Stdio::null()).env_remove("PILOTHOUSE_TOKEN"));
        self.ready = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    }

    /// A verb of the operator on this instance.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = pilothouse();
        command.args(words).args(["--name", &self.name, "--data-dir", self.dir.to_str().unwrap()]);
        command
    }

    /// A verb of the user, in the environment that a script would set.
    pub fn user(&self, words: &[&str]) -> Command {
        let mut command = pilothouse();
        command
            .args(words)
            .env("HOME", self.scratch.home())
            .env("PILOTHOUSE_SERVER", format!("https://{}", self.field("gateway")));
        command.env("PILOTHOUSE_TOKEN", &self.token).env("PILOTHOUSE_CA_FILE", self.field("ca_file"));
        command
    }

    pub fn field(&self, name: &str) -> String {
        self.ready[name].as_str().unwrap_or_default().to_owned()
    }

    /// The bundle's kubectl with a kubeconfig of a cluster.
    pub fn kubectl(&self, kubeconfig: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program("kubectl"));
        command.arg("--kubeconfig").arg(kubeconfig).args(words).stdin(Stdio::null()).env("HOME", self.scratch.home());
        command
    }

    /// The platform's own view of its host, as an operator debugging would have.
    pub fn host_kubectl(&self, words: &[&str]) -> Command {
        self.kubectl(&self.dir.join("host/pki/operator.kubeconfig"), words)
    }

    /// `kubeconfig CLUSTER > FILE`.
    pub fn kubeconfig(&self, cluster: &str) -> PathBuf {
        let path = self.dir.join(format!("{cluster}.kubeconfig"));
        std::fs::write(&path, ok(&mut self.user(&["kubeconfig", cluster]))).unwrap();
        path
    }

    /// Waits for this many ready nodes whose names begin so, and returns their names.
    pub fn nodes(&self, kubeconfig: &Path, begin: &str, count: usize) -> Vec<String> {
        until("nodes ready", || {
            let output = self.kubectl(kubeconfig, &["get", "nodes", "--no-headers"]).output().unwrap();
            let seen = text(&output.stdout) + text(&output.stderr).as_str();
            let lines = seen.lines().filter(|line| line.starts_with(begin) && line.contains(" Ready "));
            let ready: Vec<String> = lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
            if ready.len() == count { Ok(ready) } else { Err(seen) }
        })
    }

    /// Runs a pod of busybox that sleeps, and waits until a command can be run in it. The two values are what its
    /// specification and its container have besides.
    pub fn sleeper(&self, kubeconfig: &Path, name: &str, (spec, container): (Value, Value)) {
        let mut main = serde_json::json!({
            "name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "100000"],
        });
        main.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        let mut pod = serde_json::json!({ "terminationGracePeriodSeconds": 1, "containers": [main] });
        pod.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let object = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": { "run": name } }, "spec": pod,
        });
        // The default account is there a moment after the namespace.
        until("the pod to be accepted", || {
            let file = self.scratch.at(&format!("{name}.json"));
            std::fs::write(&file, object.to_string()).unwrap();
            let output = self.kubectl(kubeconfig, &["apply", "-f", file.to_str().unwrap()]).output().unwrap();
            if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
        });
        self.answers(kubeconfig, name);
    }

    /// Waits until a command runs in this pod.
    pub fn answers(&self, kubeconfig: &Path, pod: &str) {
        until("a command to run in the pod", || {
            let output = self.kubectl(kubeconfig, &["exec", pod, "--", "echo", "here"]).output().unwrap();
            if output.stdout == b"here\n" { Ok(()) } else { Err(text(&output.stderr)) }
        });
    }

    /// Waits until a pod with this label is ready and returns its name.
    pub fn pod(&self, kubeconfig: &Path, namespace: &str, label: &str) -> String {
        until("pod ready", || {
            let template = "{range .items[?(@.status.phase==\"Running\")]}{.metadata.name} {.status.containerStatuses[0].ready}{\"\\n\"}{end}";
            let output = self
                .kubectl(
                    kubeconfig,
                    &["get", "pods", "-n", namespace, "-l", label, "-o", &format!("jsonpath={template}")],
                )
                .output()
                .unwrap();
            let seen = text(&output.stdout) + text(&output.stderr).as_str();
            seen.lines().find_map(|line| line.strip_suffix(" true")).map(str::to_owned).ok_or(seen)
        })
    }

    /// `down --purge`, and the machine must be as it was.
    pub fn down(self) {
        let record: Value = serde_json::from_slice(&std::fs::read(self.dir.join("instance.json")).unwrap()).unwrap();
        let slot = record["slot"].as_u64().unwrap();
        ok(&mut self.command(&["down", "--purge", "--yes"]));
        let (before, name, dir) = (self.before.clone(), self.name.clone(), self.dir.clone());
        let scratch = self.scratch.dir.clone();
        drop(self);
        assert!(!scratch.exists(), "{} is still there", scratch.display());
        assert_eq!(crate::leftovers::processes(&scratch), Vec::new(), "processes beside the platform");
        before.assert_nothing_left(&name, &dir, slot);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        println!("{}: {} s", self.name, self.begun.elapsed().as_secs());
        if std::thread::panicking() {
            eprintln!("logs of the failed story:");
            for component in ["pilothouse", "node"] {
                let logs = self.command(&["logs", component, "--tail", "30"]).output();
                eprintln!("{}", logs.map(|output| text(&output.stdout)).unwrap_or_default());
            }
        }
        if self.dir.exists() && std::env::var_os("PILOTHOUSE_KEEP").is_none() {
            self.command(&["down", "--purge", "--yes"]).output().ok();
        }
    }
}
