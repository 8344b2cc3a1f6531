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
        assert!(!dir.exists(), "{} is still there", dir.display());
        assert!(!Path::new("/run/pilothouse").join(name).exists(), "/run/pilothouse/{name} is still there");
        assert_eq!(processes(dir), nothing, "processes");
    }
}

/// Processes whose command line names the instance's directory.
fn processes(dir: &Path) -> Vec<String> {
    let wanted = dir.display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&wanted)
            && entry.file_name().to_string_lossy().parse::<u32>().is_ok_and(|pid| pid != std::process::id())
        {
            found.push(line);
        }
    }
    found
}
