//! Checks of kernel, user, programs and clock.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cgroup::Cgroups;
use crate::check::Check;

/// Below this a clock is taken for unset: certificates made under it would already have ended (2025-01-01, in seconds since 1970).
const EARLIEST: u64 = 1_735_689_600;
/// Without these kubelet does not start (its "system validation"), or pods could not be bounded.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// Whether this process may do everything; `why` names what needs it, `remedy` a way out.
pub fn root(why: &str, remedy: &str) -> Check {
    root_of(nix::unistd::geteuid().is_root(), why, remedy)
}

/// [`root`], of what was read earlier.
pub fn root_of(is_root: bool, why: &str, remedy: &str) -> Check {
    if is_root {
        return Check::pass("root", "running as root");
    }
    Check::fail("root", format!("not root{why}"), remedy)
}

/// Whether there are programs for this architecture (in Kubernetes' words).
pub fn architecture(arch: &str) -> Check {
    if ["amd64", "arm64"].contains(&arch) {
        return Check::pass("arch", arch);
    }
    Check::fail("arch", arch, "use an amd64 or arm64 machine")
}

/// `6.18.5-foo` → (6, 18).
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether the kernel is new enough; `why` names what needs it.
pub fn kernel(release: &str, least: (u32, u32), why: &str) -> Check {
    let release = release.trim();
    if kernel_version(release).is_some_and(|version| version >= least) {
        return Check::pass("kernel", format!("Linux {release}"));
    }
    let remedy = format!("use Linux {}.{} or newer ({why}); Debian 12 has 6.1", least.0, least.1);
    Check::fail("kernel", format!("Linux {release} is too old"), remedy)
}

/// The running kernel's release.
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Whether cgroups are mounted, and have the controllers that bound pods; `needs_v2`: version 1 alone does not do.
pub fn cgroups(cgroups: &Cgroups, needs_v2: bool) -> Check {
    if cgroups.is_empty() || (needs_v2 && cgroups.unified().is_none()) {
        let observed = if needs_v2 { "no cgroup v2 hierarchy is mounted" } else { "no cgroups are mounted" };
        return Check::fail("cgroups", observed, "mount it: mount -t cgroup2 none /sys/fs/cgroup");
    }
    let have = cgroups.controllers();
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !have.contains(*name)).collect();
    if !missing.is_empty() {
        return Check::fail(
            "cgroups",
            format!("controllers are missing: {}", missing.join(", ")),
            "start the kernel with them (on its command line: cgroup_enable=memory), or have the surrounding container delegate them",
        );
    }
    let mode = match (cgroups.is_v1(), cgroups.is_hybrid()) {
        (false, _) => "v2",
        (true, true) => "hybrid (v1 controllers beside v2)",
        (true, false) => "v1",
    };
    Check::pass("cgroups", mode)
}

/// Whether overlayfs can be mounted. `filesystems` is the text of `/proc/filesystems`; a module that is not loaded is loaded by the first
/// mount (request_module in the kernel's `get_fs_type`), if it lies below `modules`, `/lib/modules`.
pub fn overlayfs(filesystems: &str, modules: &Path, release: &str) -> Check {
    let is_known = filesystems.split_whitespace().any(|name| name == "overlay");
    if is_known || modules.join(release.trim()).join("kernel/fs/overlayfs").exists() {
        return Check::pass("overlayfs", "the kernel has it");
    }
    let remedy = "use a kernel with overlayfs; after an update of the kernel, reboot";
    Check::fail("overlayfs", "the kernel does not have it", remedy)
}

/// [`overlayfs`], of this machine.
pub fn overlayfs_here() -> Check {
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    overlayfs(&filesystems, Path::new("/lib/modules"), &kernel_release())
}

/// Whether containers may lower their out-of-memory score; `status` is the text of `/proc/self/status`.
pub fn capability(status: &str) -> Check {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).map(str::trim).unwrap_or("0");
    if u64::from_str_radix(effective, 16).unwrap_or(0) & CAP_SYS_RESOURCE != 0 {
        return Check::pass("capability", "CAP_SYS_RESOURCE is there");
    }
    Check::warn(
        "capability",
        "CAP_SYS_RESOURCE is missing: containers cannot lower their out-of-memory score",
        "nothing to do: containerd is told not to try",
    )
}

/// Whether programs are there that nothing installs; `missing` names those that are not.
pub fn programs(missing: &[String], remedy: &str) -> Check {
    if missing.is_empty() {
        return Check::pass("programs", "every program is there");
    }
    Check::fail("programs", format!("missing: {}", missing.join(", ")), remedy)
}

/// Whether a program lies in the search path, or where administrators' tools lie.
pub fn has_program(name: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"]);
    dirs.map(Path::new).any(|dir| dir.join(name).exists())
}

/// Whether the clock was ever set; `now` in seconds since 1970.
pub fn clock(now: u64) -> Check {
    if now >= EARLIEST {
        return Check::pass("clock", "set");
    }
    Check::fail(
        "clock",
        "the clock stands before 2025: certificates would not be valid",
        "set it: date -s …, or install an NTP client",
    )
}

/// Seconds since 1970, by this machine's clock.
pub fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn a_kernel_is_judged_by_its_number() {
        for (release, status) in [
            ("6.1.0-13-cloud-amd64\n", Verdict::Pass),
            ("5.14.0", Verdict::Pass),
            ("5.13.9", Verdict::Fail),
            ("strange", Verdict::Fail),
        ] {
            assert_eq!(kernel(release, (5, 14), "cgroup.kill").status, status, "{release}");
        }
    }

    #[test]
    fn an_overlay_that_is_not_loaded_yet_counts() {
        let modules = std::env::temp_dir().join(format!("pilothouse-modules-{}", std::process::id()));
        let judged = |filesystems: &str| overlayfs(filesystems, &modules, "6.1.0-1-amd64\n").status;
        assert_eq!(judged("nodev\tproc\nnodev\toverlay\n"), Verdict::Pass);
        assert_eq!(judged("nodev\tproc\n"), Verdict::Fail);
        std::fs::create_dir_all(modules.join("6.1.0-1-amd64/kernel/fs/overlayfs")).unwrap();
        let loadable = judged("nodev\tproc\n");
        std::fs::remove_dir_all(&modules).unwrap();
        assert_eq!(loadable, Verdict::Pass);
    }

    #[test]
    fn a_clock_that_was_never_set_is_seen() {
        assert_eq!(clock(0).status, Verdict::Fail);
        assert_eq!(clock(EARLIEST).status, Verdict::Pass);
    }

    #[test]
    fn a_hierarchy_without_the_controllers_that_bound_pods_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let judged = |needs_v2| cgroups(&Cgroups::at(dir.path()), needs_v2);
        assert_eq!(judged(false).status, Verdict::Fail, "nothing is mounted");
        for name in ["cpu,cpuacct", "pids"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("cgroup.procs"), "").unwrap();
        }
        assert!(judged(false).observed.contains("missing: memory"), "{:?}", judged(false));
        std::fs::create_dir(dir.path().join("memory")).unwrap();
        std::fs::write(dir.path().join("memory/cgroup.procs"), "").unwrap();
        assert_eq!((judged(false).status, judged(true).status), (Verdict::Pass, Verdict::Fail));
        std::fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu memory\n").unwrap();
        assert!(judged(true).observed.contains("missing: pids"));
        std::fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu memory pids\n").unwrap();
        assert_eq!(judged(true), Check::pass("cgroups", "v2"));
    }
}
