//! Kernel, file systems and clock.

use std::path::Path;

use crate::check::Check;

/// Below this a clock is taken for unset: certificates made under it would already have ended (2025-01-01, in seconds since 1970).
const EARLIEST: u64 = 1_735_689_600;

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
}
