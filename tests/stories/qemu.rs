//! A virtual machine brought by its owner: it boots, pastes the line by cloud-init, and is a node.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::world::{World, ok, until};

struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn run(argv: &[&str]) {
    let output = Command::new(argv[0]).args(&argv[1..]).output().unwrap();
    assert!(output.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A root disk from the Debian tree, and the kernel that boots it.
fn disk(tree: &Path, dir: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let image = dir.join("root.img");
    run(&["truncate", "-s", "4G", image.to_str().unwrap()]);
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

/// The NoCloud seed (cloud-init documentation): a small ISO named `cidata`.
fn seed(user_data: &str, dir: &Path) -> PathBuf {
    std::fs::write(dir.join("user-data"), user_data).unwrap();
    std::fs::write(dir.join("meta-data"), "instance-id: byo-1\nlocal-hostname: byo-1\n").unwrap();
    let iso = dir.join("seed.iso");
    let file = |name: &str| dir.join(name).display().to_string();
    run(&[
        "genisoimage",
        "-quiet",
        "-output",
        iso.to_str().unwrap(),
        "-volid",
        "cidata",
        "-joliet",
        "-rock",
        &file("user-data"),
        &file("meta-data"),
    ]);
    iso
}

fn boot(dir: &Path, (image, kernel, initrd): (PathBuf, PathBuf, PathBuf), seed: &Path) -> Machine {
    let drive = |path: &Path| format!("file={},format=raw,if=virtio", path.display());
    let console = format!("file:{}", dir.join("console.log").display());
    let child = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "2048",
            "-display",
            "none",
            "-no-reboot",
            "-nic",
            "user,model=virtio",
        ])
        .args(["-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 ds=nocloud"])
        .args(["-serial", &console, "-drive", &drive(&image), "-drive", &drive(seed)])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    Machine(child)
}

#[test]
#[ignore = "minutes of software emulation: ./test all"]
fn story_own_machine() {
    let Some(world) = World::up("qemu") else { return };
    ok(&mut world.user(&["cluster", "create", "demo", "--wait"]));
    let kubeconfig = world.kubeconfig("demo");
    let user_data = ok(&mut world.user(&["node", "join-command", "--cluster", "demo", "--cloud-init"]));
    assert!(user_data.starts_with("#cloud-config"), "{user_data}");
    let tree =
        bundle::node_image::locate(&bundle::node_image::NodeImageOptions::new(bundle::Cache::default_dir())).unwrap();
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let disks = disk(&tree, dir.path());
    let iso = seed(&user_data, dir.path());
    let begun = Instant::now();
    let machine = boot(dir.path(), disks, &iso);
    let nodes = until("the machine to be a node", 300, || {
        let output = world.kubectl(&kubeconfig, &["get", "nodes", "--no-headers"]).output().unwrap();
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        if seen.contains(" Ready ") { Ok(seen) } else { Err(seen + &tail(&dir.path().join("console.log"))) }
    });
    println!("power-on to Ready: {:.1} s", begun.elapsed().as_secs_f64());
    assert!(nodes.starts_with("byo-1 "), "{nodes}");
    let dns = world.pod(&kubeconfig, "kube-system", "k8s-app=kube-dns");
    let version =
        ok(&mut world.kubectl(&kubeconfig, &["exec", "-n", "kube-system", &dns, "--", "coredns", "-version"]));
    assert!(version.contains("CoreDNS-1.15.0"), "{version}");
    ok(&mut world.user(&["node", "remove", "byo-1", "--cluster", "demo", "--yes", "--wait"]));
    assert_eq!(ok(&mut world.kubectl(&kubeconfig, &["get", "nodes", "--no-headers"])), "");
    drop(machine);
    ok(&mut world.user(&["cluster", "delete", "demo", "--yes", "--wait"]));
    world.down();
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(1500)..]).into_owned()
}
