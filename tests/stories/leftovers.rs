//! Nothing left behind: no process, mount, namespace, bridge, nftables table, cgroup or file of a story's instance.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// What of a machine a platform touches.
#[derive(Clone, Default)]
pub struct Snapshot {
    links: BTreeSet<String>,
    tables: BTreeSet<String>,
    mounts: BTreeSet<String>,
    routes: BTreeSet<String>,
    cgroups: BTreeSet<String>,
}

fn lines(argv: &[&str]) -> BTreeSet<String> {
    let output = Command::new(argv[0]).args(&argv[1..]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

impl Snapshot {
    pub fn take() -> Self {
        let name = |line: &String| line.split([':', '@']).nth(1).unwrap_or_default().trim().to_owned();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut cgroups = BTreeSet::new();
        for root in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            for entry in std::fs::read_dir(root.path()).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    cgroups.insert(entry.path().display().to_string());
                }
            }
        }
        Self {
            links: lines(&["ip", "-o", "link"]).iter().map(name).collect(),
            tables: lines(&["nft", "list", "tables"]),
            mounts: mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect(),
            routes: lines(&["ip", "route"]),
            cgroups,
        }
    }

    /// Compares with now; other programs of the machine may come and go, so only what is new and ours counts.
    pub fn assert_nothing_left(&self, name: &str, dir: &Path) {
        let now = Self::take();
        let fresh = |now: &BTreeSet<String>, before: &BTreeSet<String>| -> Vec<String> { now.difference(before).cloned().collect() };
        assert_eq!(fresh(&now.links, &self.links), Vec::<String>::new(), "links");
        assert_eq!(fresh(&now.tables, &self.tables), Vec::<String>::new(), "nftables tables");
        assert_eq!(fresh(&now.mounts, &self.mounts), Vec::<String>::new(), "mounts");
        assert_eq!(fresh(&now.routes, &self.routes), Vec::<String>::new(), "routes");
        let ours: Vec<String> = fresh(&now.cgroups, &self.cgroups).into_iter().filter(|path| path.contains("pilothouse")).collect();
        assert_eq!(ours, Vec::<String>::new(), "cgroups");
        assert!(!dir.exists(), "{} is still there", dir.display());
        assert!(!Path::new("/run/pilothouse").join(name).exists(), "/run/pilothouse/{name} is still there");
        assert_eq!(processes(dir), Vec::<String>::new(), "processes");
    }
}

/// Processes whose command line names the instance's directory.
fn processes(dir: &Path) -> Vec<String> {
    let wanted = dir.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&wanted) && entry.file_name().to_string_lossy().parse::<u32>().is_ok_and(|pid| pid != std::process::id()) {
            found.push(line);
        }
    }
    found
}
