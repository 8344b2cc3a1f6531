//! Nothing left behind: no process, mount, namespace, bridge, nftables table, cgroup or file of a story's instance.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where libcni and kubelet keep files whatever they are told: they are the machine's, so they must be emptied by name.
const CNI_RESULTS: &str = "/var/lib/cni";
const DEVICE_PLUGINS: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";

/// What of a machine a platform touches.
#[derive(Clone, Default)]
pub struct Snapshot {
    links: BTreeSet<String>,
    tables: BTreeSet<String>,
    mounts: BTreeSet<String>,
    routes: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    dead_socket: bool,
}

fn lines(argv: &[&str]) -> BTreeSet<String> {
    let output = Command::new(argv[0]).args(&argv[1..]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

impl Snapshot {
    pub fn take() -> Self {
        let name = |line: &String| line.split([':', '@']).nth(1).unwrap_or_default().trim().to_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        Self {
            links: lines(&["ip", "-o", "link"]).iter().map(name).collect(),
            tables: lines(&["nft", "list", "tables"]),
            mounts: mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect(),
            routes: lines(&["ip", "route"]),
            cgroups: cgroups(),
            dead_socket: Path::new(DEVICE_PLUGINS).exists() && UnixStream::connect(DEVICE_PLUGINS).is_err(),
        }
    }

    /// Compares with now. Other programs, and other platforms, may come and go: what is new counts only where it is ours.
    pub fn assert_nothing_left(&self, name: &str, dir: &Path, slot: u64) {
        let now = Self::take();
        let ours = |now: &BTreeSet<String>, before: &BTreeSet<String>, marks: &[String]| -> Vec<String> {
            now.difference(before).filter(|one| marks.iter().any(|mark| one.contains(mark))).cloned().collect()
        };
        let nothing = Vec::<String>::new();
        let wires = [format!("phbr{slot}"), format!("ph{slot}h"), format!("ph{slot}m")];
        let names = [name.to_owned(), dir.display().to_string()];
        assert_eq!(ours(&now.links, &self.links, &wires), nothing, "links");
        assert_eq!(ours(&now.tables, &self.tables, &names), nothing, "nftables tables");
        assert_eq!(ours(&now.mounts, &self.mounts, &names), nothing, "mounts");
        assert_eq!(ours(&now.routes, &self.routes, &[format!("100.{}.", 64 + slot)]), nothing, "routes");
        assert_eq!(ours(&now.cgroups, &self.cgroups, &names), nothing, "cgroups");
        for path in [dir.to_owned(), Path::new("/run/pilothouse").join(name)] {
            assert!(!path.exists(), "{} is still there", path.display());
        }
        assert_eq!(slots(name), nothing, "slots");
        assert_eq!(processes(dir), Vec::new(), "processes");
        assert_eq!(mentioning(Path::new(CNI_RESULTS), &names), Vec::<PathBuf>::new(), "files of libcni");
        assert!(self.dead_socket || !now.dead_socket, "{DEVICE_PLUGINS} is left, and nobody listens on it");
    }

    /// Nothing of an instance that was refused before it began.
    pub fn assert_untouched(&self) {
        let now = Self::take();
        let new = |now: &BTreeSet<String>, before: &BTreeSet<String>| -> Vec<String> {
            now.difference(before).filter(|one| one.contains("ph-refused")).cloned().collect()
        };
        assert_eq!(new(&now.mounts, &self.mounts), Vec::<String>::new(), "mounts");
        assert_eq!(new(&now.cgroups, &self.cgroups), Vec::<String>::new(), "cgroups");
    }
}

/// Files below a directory that others may read and whose text holds this. Sockets and devices are not opened.
pub fn readable_with(dir: &Path, secret: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        let others = meta.permissions().mode() & 0o005;
        if meta.is_dir() && others & 1 != 0 {
            found.extend(readable_with(&path, secret));
        } else if meta.is_file() && others & 4 != 0 && meta.len() < 16 << 20 {
            let text = std::fs::read(&path).unwrap_or_default();
            if text.windows(secret.len()).any(|part| part == secret.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

fn cgroups() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        for entry in std::fs::read_dir(root.path()).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                found.insert(entry.path().display().to_string());
            }
        }
    }
    found
}

/// Slots of this machine that an instance of this name still holds.
fn slots(name: &str) -> Vec<String> {
    let files = std::fs::read_dir("/var/lib/pilothouse/.slots").into_iter().flatten().flatten();
    let holders = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    holders.filter(|text| text.lines().next() == Some(name)).collect()
}

/// Files below a directory whose text names one of these.
fn mentioning(dir: &Path, names: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(mentioning(&path, names));
        } else if std::fs::read_to_string(&path).is_ok_and(|text| names.iter().any(|name| text.contains(name))) {
            found.push(path);
        }
    }
    found
}

/// Processes whose command line names this directory.
pub fn processes(dir: &Path) -> Vec<(i32, String)> {
    let wanted = dir.display().to_string();
    let own = std::process::id().cast_signed();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&wanted) && pid != own {
            found.push((pid, line));
        }
    }
    found
}
