//! The questions about the machine itself. None of them changes anything.

use std::fs;
use std::path::Path;

use super::Check;
use crate::cgroup;
use crate::instance::Instance;
use crate::run::run;

/// The Debian packages that an embedded host and building its components need, and a file of each by which it is recognised.
pub const PACKAGES: [(&str, &str); 10] = [
    ("iproute2", "sbin/ip"),
    ("nftables", "sbin/nft"),
    ("conntrack", "sbin/conntrack"),
    ("util-linux", "bin/nsenter"),
    ("kmod", "sbin/modprobe"),
    ("busybox-static", "bin/busybox"),
    ("gcc", "bin/gcc"),
    ("pkg-config", "bin/pkg-config"),
    ("libseccomp-dev", "include/seccomp.h"),
    ("mmdebstrap", "bin/mmdebstrap"),
];
/// A tenant's etcd is a gigabyte at most, a bundle is one, images twice that.
const DISK_NEEDED: u64 = 6 << 30;
/// Below this a clock is taken for unset: certificates made under it would already have ended (2025-01-01).
const EARLIEST: u64 = 1_735_689_600;
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// Everything that can be asked before an instance runs.
pub fn machine(instance: &Instance) -> Vec<Check> {
    vec![root(), kernel(), filesystems(), cgroups(), capability(), packages(), disk(instance), clock()]
}

fn root() -> Check {
    if nix::unistd::geteuid().is_root() {
        return Check::pass("root", "running as root");
    }
    Check::fail(
        "root",
        "not root: an embedded host needs root for network namespaces, mounts and cgroups",
        "run it with sudo, or use a cluster you have: `pilothouse up --host-kubeconfig FILE`",
    )
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version >= (5, 14) {
        return Check::pass("kernel", format!("Linux {release}"));
    }
    Check::fail(
        "kernel",
        format!("Linux {release} is too old"),
        "5.14 or newer is needed (cgroup.kill); Debian 12 has 6.1",
    )
}

fn filesystems() -> Check {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let missing: Vec<&str> =
        ["overlay", "tmpfs"].into_iter().filter(|name| !known.lines().any(|line| line.ends_with(name))).collect();
    if missing.is_empty() {
        return Check::pass("filesystems", "overlay and tmpfs are there");
    }
    Check::fail(
        "filesystems",
        format!("the kernel does not offer {}", missing.join(", ")),
        format!("load it: modprobe {}", missing.join(" ")),
    )
}

fn cgroups() -> Check {
    let root = cgroup::v2_root();
    if !root.join("cgroup.procs").exists() {
        return Check::fail(
            "cgroups",
            "no cgroup v2 hierarchy is mounted",
            "mount it: mount -t cgroup2 none /sys/fs/cgroup",
        );
    }
    let mode = if cgroup::is_hybrid() { "hybrid (v1 controllers beside v2)" } else { "v2" };
    Check::pass("cgroups", mode)
}

fn capability() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).map(str::trim).unwrap_or("0");
    let held = u64::from_str_radix(effective, 16).unwrap_or(0) & CAP_SYS_RESOURCE != 0;
    if held {
        return Check::pass("capability", "CAP_SYS_RESOURCE is there");
    }
    Check::warn(
        "capability",
        "CAP_SYS_RESOURCE is missing: containers cannot lower their out-of-memory score",
        "nothing to do: containerd is told not to try",
    )
}

/// Which packages are missing, as a check.
pub fn packages() -> Check {
    let missing = missing_packages();
    if missing.is_empty() {
        return Check::pass("packages", "every Debian package is there");
    }
    Check::warn(
        "packages",
        format!("missing: {}", missing.join(" ")),
        format!("`pilothouse up` installs them, or: apt-get install -y {}", missing.join(" ")),
    )
}

/// The names of the packages whose file is not on this machine.
pub fn missing_packages() -> Vec<&'static str> {
    let absent = |file: &str| !["/usr", "/"].iter().any(|root| Path::new(root).join(file).exists());
    PACKAGES.iter().filter(|(_, file)| absent(file)).map(|(package, _)| *package).collect()
}

fn disk(instance: &Instance) -> Check {
    let place = instance.dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let Ok(stat) = nix::sys::statvfs::statvfs(place) else {
        return Check::warn("disk", format!("free space of {} is unknown", place.display()), "check it with df");
    };
    let free = stat.blocks_available() * stat.fragment_size();
    let text = format!("{:.1} GiB free in {}", free as f64 / f64::from(1 << 30), place.display());
    if free >= DISK_NEEDED {
        return Check::pass("disk", text);
    }
    Check::fail(
        "disk",
        format!("{text}; {} GiB are needed", DISK_NEEDED >> 30),
        "free some, or put --data-dir on a larger disk",
    )
}

fn clock() -> Check {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    if now >= EARLIEST {
        return Check::pass("clock", "set");
    }
    Check::fail(
        "clock",
        "the clock stands before 2025: certificates would not be valid",
        "set it: date -s …, or install an NTP client",
    )
}

/// What dead instances left on the machine: cgroups whose name starts with ours but whose slot is gone.
pub async fn leftovers() -> Vec<Check> {
    let living: Vec<String> = slots();
    let mut orphans: Vec<String> = Vec::new();
    for entry in fs::read_dir(cgroup::v2_root()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(instance) = name.strip_prefix("pilothouse-") else { continue };
        if !living.iter().any(|known| known == instance) {
            orphans.push(format!("cgroup {name}"));
        }
    }
    orphans.extend(orphan_tables(&living).await);
    if orphans.is_empty() {
        return vec![Check::pass("leftovers", "none")];
    }
    let advice = "remove them: pilothouse down --purge --yes --name NAME --data-dir DIR";
    vec![Check::warn("leftovers", orphans.join(", "), advice)]
}

async fn orphan_tables(living: &[String]) -> Vec<String> {
    let tables = run(&["nft", "list", "tables"]).await.unwrap_or_default();
    let ours = tables.lines().filter_map(|line| line.split(" pilothouse_").nth(1));
    ours.filter(|name| !living.iter().any(|known| known.replace('-', "_") == **name))
        .map(|name| format!("nftables table pilothouse_{name}"))
        .collect()
}

/// The names of the instances that hold a slot on this machine.
fn slots() -> Vec<String> {
    let files = fs::read_dir("/run/pilothouse/slots").into_iter().flatten().flatten();
    files.filter_map(|file| Some(fs::read_to_string(file.path()).ok()?.lines().next()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn every_failure_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let instance = Instance::new("checks", Some(dir.path().join("deep/er"))).unwrap();
        let all = machine(&instance);
        assert_eq!(all.len(), 8);
        for check in all {
            assert!(check.status == Verdict::Pass || !check.remediation.is_empty(), "{check:?}");
        }
    }
}
