//! A server whose kernel has cgroup version 2 alone, as every new Debian and Ubuntu has: a virtual one starts the platform, makes a
//! cluster with a local machine, runs a pod on it, and is left as it was. It has no toolchain and no internet, only the cache.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use bundle::Cache;
use bundle::node_image::{self, NodeImageOptions};

use crate::own_machine::{disk, emulator, run};
use crate::scratch::Scratch;
use crate::world::{World, is_root, ok, pilothouse, text};

/// What the server does once it has booted. Each of its steps prints a line that begins with [`MARK`].
const SCRIPT: &str = include_str!("cgroup_v2.sh");
const MARK: &str = "STORY ";
const UNIT: &str = "[Unit]\nAfter=systemd-networkd-wait-online.service\nWants=systemd-networkd-wait-online.service\n\
    [Service]\nType=oneshot\nExecStart=/usr/local/bin/story\nStandardOutput=tty\nStandardError=tty\nTTYPath=/dev/ttyS0\n\
    [Install]\nWantedBy=multi-user.target\n";
const NETWORK: &str = "[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n";
/// Software emulation: some twenty times slower than the machine it runs on.
const LIMIT: Duration = Duration::from_secs(3600);

/// Off when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Of `./test full`: software emulation takes half an hour for it.
#[test]
fn story_on_cgroup_v2_alone() {
    if !is_root("cgroup v2") {
        return;
    }
    World::with_bundle();
    ok(pilothouse().args(["bundle", "node-image"]));
    let scratch = Scratch::new("v2");
    // The key that signs the cache goes along.
    std::fs::set_permissions(&scratch.dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    let console = scratch.at("console.log");
    let server = boot(&stage(&scratch.dir), &scratch.dir, &console);
    follow(server, &console);
}

/// The Debian tree as a server's: with the program, the cache and the script.
fn stage(dir: &Path) -> PathBuf {
    let (cache, root) = (Cache::default_dir(), dir.join("root"));
    let tree = node_image::locate(&NodeImageOptions::new(&cache)).unwrap();
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        run(&["cp", "-a", "--reflink=auto", "-T", from.to_str().unwrap(), to.to_str().unwrap()]);
    };
    copy(&tree, &root);
    for dir in [cache, "/etc/pilothouse".into()] {
        copy(&dir, &root.join(dir.strip_prefix("/").unwrap()));
    }
    copy(Path::new(env!("CARGO_BIN_EXE_pilothouse")), &root.join("usr/local/bin/pilothouse"));
    copy(&crate::world::program("kubectl"), &root.join("usr/local/bin/kubectl"));
    let files = [
        ("usr/local/bin/story", SCRIPT, 0o755),
        ("etc/systemd/system/story.service", UNIT, 0o644),
        ("etc/systemd/network/10-eth0.network", NETWORK, 0o644),
    ];
    for (name, content, mode) in files {
        std::fs::write(root.join(name), content).unwrap();
        std::fs::set_permissions(root.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let wanted = root.join("etc/systemd/system/multi-user.target.wants");
    std::os::unix::fs::symlink("../story.service", wanted.join("story.service")).unwrap();
    root
}

/// Powers it on. `restrict`: nothing of the world answers it.
fn boot(root: &Path, dir: &Path, console: &Path) -> Server {
    let (image, kernel, initrd) = disk(root, dir, "12G");
    let child = emulator("cloud-init=disabled systemd.mask=serial-getty@ttyS0.service", console)
        .args(["-m", "6144", "-nic", "user,model=virtio,restrict=on", "-no-reboot"])
        .args(["-drive", &format!("file={},format=raw,if=virtio,cache=unsafe", image.display())])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .spawn()
        .unwrap();
    Server(child)
}

/// Prints the steps as they come, until the last one or the first failure.
fn follow(server: Server, console: &Path) {
    let (begun, mut shown) = (Instant::now(), 0);
    loop {
        let log = text(&std::fs::read(console).unwrap_or_default());
        let steps: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once(MARK)?.1.trim())).collect();
        for step in steps.iter().skip(shown) {
            println!("cgroup v2: {:4} s  {step}", begun.elapsed().as_secs());
        }
        shown = steps.len();
        match steps.last() {
            Some(&"done") => break,
            Some(last) if last.starts_with("failed") => panic!("{}", tail(&log)),
            _ if begun.elapsed() > LIMIT => panic!("not within {LIMIT:?}: {}", tail(&log)),
            _ => std::thread::sleep(Duration::from_millis(500)),
        }
    }
    drop(server);
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(120)..].join("\n")
}
