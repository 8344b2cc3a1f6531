//! The **node image**: one Debian tree that machine containers use as the read-only lower layer of their root, and
//! from which a disk for virtual machines can be made (it has a kernel, systemd and cloud-init).
//!
//! Built by `mmdebstrap` from the machine's own apt sources. Kubernetes is not in it: every node takes its parts from
//! the platform, so one tree serves all versions. A tree is named by what it was asked to hold (suite, packages,
//! architecture), not by the day; it is complete if and only if it has its final name.

mod sources;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::mount::{MntFlags, umount2};
use tokio::process::Command;

use crate::build::blocking;
use crate::cache::{Cache, key};
use crate::command::{Step, find, run};
use crate::error::At;
use crate::manifest::arch;
use crate::{BundleError, FreeSpace, Progress, Report, Result, disk, free_space};

/// Bumped when the way of building changes.
const RECIPE: &str = "4";
/// What a build writes at most, downloads included.
const NEEDS: u64 = 1500 << 20;
const NAME: &str = "node image";

const PACKAGES: &str = "ca-certificates cloud-init conntrack curl dbus e2fsprogs ethtool iproute2 iptables isc-dhcp-client kmod \
    linux-image-cloud-amd64 mount nftables procps python3 socat systemd-resolved systemd-sysv udev";

/// systemd's own network, which an emulated machine has eight seconds before ifupdown's; without services for what is not there.
const SERVICES: &str = "chroot \"$1\" systemctl --quiet enable systemd-networkd && \
    chroot \"$1\" systemctl --quiet mask cloud-config.service e2scrub_reap.service e2scrub_all.timer \
    systemd-binfmt.service";
/// How cloud-init works there. Each of its stages and modules costs a machine time, at every boot.
const CLOUD_INIT: [(&str, &str); 2] = [
    ("etc/cloud/cloud.cfg.d/10_pilothouse.cfg", include_str!("../data/node-image-cloud.cfg")),
    ("etc/systemd/system/cloud-init.service.d/10-pilothouse.conf", include_str!("../data/node-image-cloud-init.conf")),
];

/// Neither needed by programs nor read by people inside a node.
const LEFT_OUT: [&str; 4] = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*"];

/// What tree to build, and where.
#[derive(Clone)]
pub struct NodeImageOptions {
    /// Cache directory; made if missing.
    pub cache: PathBuf,
    /// Debian release.
    pub suite: String,
    /// Packages beside Debian's minimal base.
    pub packages: Vec<String>,
    /// apt source lines (`deb …`) or addresses; empty takes those of this machine that offer the suite.
    pub mirrors: Vec<String>,
    /// How free disk space is measured.
    pub free_space: FreeSpace,
}

impl NodeImageOptions {
    /// Debian 12 with what a node needs.
    pub fn new(cache: impl Into<PathBuf>) -> NodeImageOptions {
        NodeImageOptions {
            cache: cache.into(),
            suite: "bookworm".to_owned(),
            packages: PACKAGES.split_whitespace().map(|name| name.replace("amd64", arch())).collect(),
            mirrors: Vec::new(),
            free_space: free_space(),
        }
    }

    /// Directory of the tree; it exists only once the tree is complete.
    fn dir(&self) -> PathBuf {
        let mut packages = self.packages.clone();
        packages.sort();
        packages.dedup();
        let hash: String = key(&[RECIPE, &self.suite, arch(), &packages.join(" ")]).chars().take(16).collect();
        Cache::new(&self.cache).dir().join("node-image").join(hash)
    }
}

/// The tree these options lead to, if it is built.
pub fn locate(opts: &NodeImageOptions) -> Option<PathBuf> {
    Some(opts.dir().join("root")).filter(|root| root.is_dir())
}

/// Builds the tree, or finds it built, and returns its root. Needs root and `mmdebstrap`. Dropping the future stops
/// it; a tree begun earlier and not finished is removed and begun again.
///
/// # Errors
/// Not root, no `mmdebstrap`, disk too small, or `mmdebstrap` failed (with its last lines); nothing is left then.
pub async fn build(opts: &NodeImageOptions, report: Report<'_>) -> Result<PathBuf> {
    let begun = Instant::now();
    let dir = opts.dir();
    if let Some(root) = locate(opts) {
        report(Progress::Done {
            name: NAME.to_owned(),
            size: recorded_size(&dir),
            elapsed: begun.elapsed(),
            cached: true,
        });
        return Ok(root);
    }
    prerequisites()?;
    let _lock = Cache::new(&opts.cache).lock(report).await?;
    let partial = Partial(dir.with_extension("partial"));
    partial.clear()?;
    disk::check(&[(opts.cache.clone(), NEEDS)], &opts.free_space, report)?;
    fs::create_dir_all(partial.0.join("tmp")).at("create", &partial.0)?;
    report(Progress::Started { name: NAME.to_owned(), action: "build" });
    let root = partial.0.join("root");
    let mut describe = |line: &str| line.strip_prefix("I: ").map(|text| Step::from(text.to_owned()));
    run(command(opts, &partial.0, &root), NAME, report, &mut describe).await?;
    settle(&root)?;
    let size = blocking(move || tree_size(&root)).await?;
    finish(opts, &partial.0, &dir, size)?;
    report(Progress::Done { name: NAME.to_owned(), size, elapsed: begun.elapsed(), cached: false });
    Ok(dir.join("root"))
}

fn prerequisites() -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        return Err(BundleError::NotRoot { what: "building the node image" });
    }
    let hint = "install it with `apt-get install -y mmdebstrap`".to_owned();
    find("mmdebstrap").map(drop).ok_or(BundleError::Tool { tool: "mmdebstrap", hint })
}

fn command(opts: &NodeImageOptions, partial: &Path, root: &Path) -> Command {
    let mut command = Command::new("mmdebstrap");
    command.env("TMPDIR", partial.join("tmp")).env("LC_ALL", "C.UTF-8");
    command.args(["--mode=root", "--variant=minbase", "--format=directory"]);
    command.arg(format!("--include={}", opts.packages.join(",")));
    // The sandbox user of apt may not be able to enter the cache.
    command.arg("--aptopt=APT::Sandbox::User \"root\"");
    command.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    command.arg(format!("--customize-hook={SERVICES}"));
    command.arg(&opts.suite).arg(root);
    let own = if opts.mirrors.is_empty() { sources::of_machine(&opts.suite) } else { opts.mirrors.clone() };
    command.args(own);
    command
}

/// Takes out what makes a tree this machine's own: each node gets an id, a name and name servers of its own. Puts in what nodes have alike.
fn settle(root: &Path) -> Result<()> {
    for name in ["etc/hostname", "etc/resolv.conf", "var/lib/dbus/machine-id"] {
        let path = root.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("remove", &path),
            _ => {}
        }
    }
    for (name, text) in [("etc/machine-id", "")].into_iter().chain(CLOUD_INIT) {
        let path = root.join(name);
        let dir = path.parent().unwrap_or(root);
        fs::create_dir_all(dir).at("create", dir)?;
        fs::write(&path, text).at("write", &path)?;
    }
    Ok(())
}

fn finish(opts: &NodeImageOptions, partial: &Path, dir: &Path, size: u64) -> Result<()> {
    let _ = fs::remove_dir_all(partial.join("tmp"));
    let facts = serde_json::json!({ "suite": opts.suite, "packages": opts.packages, "arch": arch(), "size": size });
    let path = partial.join("done");
    fs::write(&path, facts.to_string()).at("write", &path)?;
    nix::unistd::sync();
    fs::rename(partial, dir).at("rename", partial)
}

fn recorded_size(dir: &Path) -> u64 {
    let facts =
        fs::read(dir.join("done")).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    facts.and_then(|facts| facts["size"].as_u64()).unwrap_or(0)
}

fn tree_size(dir: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(dir).at("read", dir)? {
        let entry = entry.at("read", dir)?;
        let data = entry.metadata().at("look at", &entry.path())?;
        size += if data.is_dir() { tree_size(&entry.path())? } else { data.blocks() * 512 };
    }
    Ok(size)
}

/// A tree under way. Removed on drop unless it was renamed into place.
struct Partial(PathBuf);

impl Partial {
    /// Unmounts what a killed `mmdebstrap` left in the tree, then removes it. Never recurses into a mount.
    fn clear(&self) -> Result<()> {
        for mount in mounts_under(&self.0)? {
            umount2(&mount, MntFlags::MNT_DETACH).map_err(io::Error::from).at("unmount", &mount)?;
        }
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &self.0),
            _ => Ok(()),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What cannot be removed now (a process still dying in it) is removed by the next build.
        let _ = self.clear();
    }
}

/// Mount points at or under `dir`, the latest first.
fn mounts_under(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).at("read", table)?;
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut under: Vec<PathBuf> = points.filter(|point| point.starts_with(&dir)).collect();
    under.reverse();
    Ok(under)
}

/// Undoes the octal escapes of `/proc/*/mountinfo` (proc(5)): space, tab, line break and backslash.
fn unescape(field: &str) -> PathBuf {
    PathBuf::from(field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_depends_on_contents_not_on_order_or_mirror() {
        let one = NodeImageOptions::new("/c");
        let mut two = one.clone();
        two.packages.reverse();
        two.mirrors = vec!["http://127.0.0.1/debian".to_owned()];
        assert_eq!(one.dir(), two.dir());
        two.packages.push("vim".to_owned());
        assert_ne!(one.dir(), two.dir());
    }

    #[tokio::test]
    async fn a_failed_build_leaves_nothing_and_says_why() {
        if prerequisites().is_err() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut opts = NodeImageOptions::new(dir.path());
        // Nobody listens on the discard port of this machine.
        opts.mirrors = vec!["http://127.0.0.1:9/debian".to_owned()];
        let stale = opts.dir().with_extension("partial").join("root/stale");
        fs::create_dir_all(&stale).unwrap();
        let error = build(&opts, &|_| {}).await.unwrap_err().to_string();
        assert!(error.starts_with("node image failed") && error.contains("E: "), "{error}");
        assert_eq!(fs::read_dir(dir.path().join("node-image")).unwrap().count(), 0);
        assert_eq!(locate(&opts), None);
    }

    #[tokio::test]
    async fn a_small_disk_is_refused_first() {
        if prerequisites().is_err() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let opts =
            NodeImageOptions { free_space: std::sync::Arc::new(|_| Ok(1 << 20)), ..NodeImageOptions::new(dir.path()) };
        let error = build(&opts, &|_| {}).await.unwrap_err();
        assert!(matches!(error, BundleError::Space { .. }), "{error}");
    }
}
