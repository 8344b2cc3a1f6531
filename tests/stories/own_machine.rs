//! A machine brought by its owner: a virtual one that boots, pastes the line by cloud-init and is a node; its agent is killed, it
//! is rebooted, and it stays the same node.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::world::{World, ok, text, within};

/// Software emulation on a machine that does other things too.
const BOOT: u64 = 900;
const NAME: &str = "byo-1";

/// The machine, off when dropped.
pub struct OwnMachine {
    qemu: Child,
    console: PathBuf,
    begun: Instant,
}

impl Drop for OwnMachine {
    fn drop(&mut self) {
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}

/// Runs a command that must succeed.
pub fn run(argv: &[&str]) {
    let output = Command::new(argv[0]).args(&argv[1..]).output().unwrap();
    assert!(output.status.success(), "{argv:?}: {}", text(&output.stderr));
}

/// A root disk of this size from a Debian tree, the kernel that boots it and its initial file system.
pub fn disk(tree: &Path, dir: &Path, size: &str) -> (PathBuf, PathBuf, PathBuf) {
    let image = dir.join("root.img");
    run(&["truncate", "-s", size, image.to_str().unwrap()]);
    run(&["mke2fs", "-q", "-t", "ext4", "-d", tree.to_str().unwrap(), image.to_str().unwrap()]);
    let newest = |prefix: &str| {
        let mut all: Vec<PathBuf> =
            std::fs::read_dir(tree.join("boot")).unwrap().flatten().map(|entry| entry.path()).collect();
        all.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix));
        all.sort();
        all.pop().unwrap()
    };
    (image, newest("vmlinuz"), newest("initrd"))
}

/// A machine in software emulation with two processors, of which the first drive is the root; `options` are the kernel's. The kernel ends
/// it with the story, however that ends.
pub fn emulator(options: &str, console: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-smp", "2", "-display", "none", "-serial", &format!("file:{}", console.display())])
        .args(["-append", &format!("root=/dev/vda rw console=ttyS0 net.ifnames=0 {options}")])
        .stdin(Stdio::null());
    command
}

/// The NoCloud seed (cloud-init documentation): a small ISO named `cidata`.
fn seed(user_data: &str, dir: &Path) -> PathBuf {
    std::fs::write(dir.join("user-data"), user_data).unwrap();
    std::fs::write(dir.join("meta-data"), format!("instance-id: {NAME}\nlocal-hostname: {NAME}\n")).unwrap();
    let iso = dir.join("seed.iso");
    let file = |name: &str| dir.join(name).display().to_string();
    let words = ["genisoimage", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-output", iso.to_str().unwrap()];
    run(&[&words[..], &[&file("user-data"), &file("meta-data")]].concat());
    iso
}

impl OwnMachine {
    /// Powers it on, with a line of this cluster in its user-data.
    pub fn boot(world: &World, cluster: &str) -> Self {
        let user_data = ok(&mut world.user(&["node", "join-command", "--cluster", cluster, "--cloud-init"]));
        assert!(user_data.starts_with("#cloud-config"), "{user_data}");
        let options = bundle::node_image::NodeImageOptions::new(bundle::Cache::default_dir());
        let dir = &world.scratch.dir;
        let (image, kernel, initrd) = disk(&bundle::node_image::locate(&options).unwrap(), dir, "4G");
        let drive = |path: &Path| format!("file={},format=raw,if=virtio", path.display());
        let console = dir.join("console.log");
        let qemu = emulator("ds=nocloud", &console)
            .args(["-m", "2048", "-nic", "user,model=virtio"])
            .args(["-drive", &drive(&image), "-drive", &drive(&seed(&user_data, dir))])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            .spawn()
            .unwrap();
        Self { qemu, console, begun: Instant::now() }
    }

    /// Waits until it is a ready node, and until its owner gets a shell on it. Returns the node's name.
    pub fn joined(&self, world: &World, kubeconfig: &Path) -> String {
        self.wait("the machine to be a node", || node(world, kubeconfig, READY, "True"));
        println!("own machine: power-on to Ready seen after {:.1} s", self.begun.elapsed().as_secs_f64());
        let root = json!({ "privileged": true });
        // A machine that takes longer than five minutes to boot again would lose it otherwise.
        let spec = json!({ "nodeName": NAME, "hostPID": true, "tolerations": [{ "operator": "Exists" }] });
        world.sleeper(kubeconfig, "root", (spec, json!({ "securityContext": root })));
        NAME.to_owned()
    }

    /// kill -9 of the agent, where systemd starts it again: the containers never notice.
    pub fn outlives_its_agent(&self, world: &World, kubeconfig: &Path) {
        let before = (pod(world, kubeconfig), agent(world, kubeconfig));
        assert!(before.1.parse::<u32>().is_ok(), "one agent: {before:?}");
        // It breaks off in the middle: it goes through the agent it kills.
        world.kubectl(kubeconfig, &["exec", "root", "--", "kill", "-9", &before.1]).output().unwrap();
        self.wait("another agent", || {
            let now = agent(world, kubeconfig);
            if now != before.1 && now.parse::<u32>().is_ok() { Ok(()) } else { Err(now) }
        });
        assert_eq!(pod(world, kubeconfig), before.0, "the container ran on");
        self.wait("the node to become Ready", || node(world, kubeconfig, READY, "True"));
    }

    /// Tells its init to reboot; [`OwnMachine::is_back`] waits for it. Returns the boot that ends.
    pub fn reboot(&self, world: &World, kubeconfig: &Path) -> String {
        let boot = ok(&mut world.kubectl(kubeconfig, &["get", "node", NAME, "-o", BOOT_ID]));
        // systemd(1): INT to process 1 is Ctrl-Alt-Del.
        world.kubectl(kubeconfig, &["exec", "root", "--", "kill", "-INT", "1"]).output().unwrap();
        boot
    }

    /// Another boot of the same node, ready, and the pod on it runs again.
    pub fn is_back(&self, world: &World, kubeconfig: &Path, boot: &str) {
        self.wait("the next boot", || {
            let output = world.kubectl(kubeconfig, &["get", "node", NAME, "-o", BOOT_ID]).output().unwrap();
            let seen = text(&output.stdout);
            if !seen.is_empty() && seen != boot { Ok(()) } else { Err(seen + text(&output.stderr).as_str()) }
        });
        self.wait("the node to become Ready", || node(world, kubeconfig, READY, "True"));
        world.answers(kubeconfig, "root");
    }

    /// [`within`] that shows the console too.
    fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
        within(BOOT, what, || {
            look().map_err(|seen| {
                let log = std::fs::read(&self.console).unwrap_or_default();
                format!("{seen}\n{}", text(&log[log.len().saturating_sub(1500)..]))
            })
        })
    }
}

const READY: &str = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
const BOOT_ID: &str = "jsonpath={.status.nodeInfo.bootID}";

fn node(world: &World, kubeconfig: &Path, template: &str, wanted: &str) -> Result<(), String> {
    let output = world.kubectl(kubeconfig, &["get", "node", NAME, "-o", template]).output().unwrap();
    let seen = text(&output.stdout);
    if seen == wanted { Ok(()) } else { Err(seen + text(&output.stderr).as_str()) }
}

/// How often the pod's container was started, and when last.
fn pod(world: &World, kubeconfig: &Path) -> String {
    let status = "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state.running.startedAt}";
    ok(&mut world.kubectl(kubeconfig, &["get", "pod", "root", "-o", &format!("jsonpath={status}")]))
}

/// The agent's process id on the machine, as its pod sees it.
fn agent(world: &World, kubeconfig: &Path) -> String {
    let words = ["exec", "root", "--", "busybox", "pidof", "pilothouse-node"];
    let output = world.kubectl(kubeconfig, &words).output().unwrap();
    text(&output.stdout).trim().to_owned()
}
