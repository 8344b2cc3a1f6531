//! Checks of what a machine has: disk, memory, processors, swap, inotify instances, open files.

use std::fs;
use std::path::Path;

use crate::check::Check;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;
/// kubelet, containerd and the agent with a few pods.
const MEMORY: u64 = 700 * MIB;
/// The kernel's default, which serves a node.
const INOTIFY_INSTANCES: u64 = 128;

/// How much room there is on a file system, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// For others than root too.
    pub free: u64,
    /// In all.
    pub total: u64,
}

impl Space {
    /// Of the file system that holds `path` or its nearest parent that exists; nothing where the kernel does not say.
    pub fn of(path: &Path) -> Option<Self> {
        let existing = path.ancestors().find(|dir| dir.exists())?;
        let stat = nix::sys::statvfs::statvfs(existing).ok()?;
        let unit = stat.fragment_size();
        Some(Self { free: stat.blocks_available() * unit, total: stat.blocks() * unit })
    }
}

/// How much room is needed on a disk, and what to do where it is not there.
#[derive(Debug, Clone, Copy)]
pub struct DiskNeeds<'a> {
    /// With less nothing works, bytes.
    pub least: u64,
    /// What to do then.
    pub remedy: &'a str,
    /// With less it works for a while, bytes.
    pub ample: u64,
    /// The same, as a part of the whole, percent.
    pub ample_percent: u64,
    /// What comes of it.
    pub consequence: &'a str,
    /// What to do then.
    pub advice: &'a str,
}

/// Whether there is room in `place`.
pub fn disk(place: &Path, space: Option<Space>, needs: &DiskNeeds<'_>) -> Check {
    let place = place.display();
    let Some(Space { free, total }) = space else {
        return Check::warn("disk", format!("free space of {place} is unknown"), "check it with df");
    };
    let text = format!("{:.1} GiB free in {place}", gib(free));
    if free < needs.least {
        let observed = format!("disk too small: {text}; {} GiB are needed", needs.least / GIB);
        return Check::fail("disk", observed, needs.remedy);
    }
    if free < needs.ample || free * 100 < total * needs.ample_percent {
        return Check::warn("disk", format!("{text}: {}", needs.consequence), needs.advice);
    }
    Check::pass("disk", text)
}

/// Whether there is memory for a node, bytes.
pub fn memory(bytes: u64) -> Check {
    let observed = format!("{:.1} GiB", gib(bytes));
    if bytes >= MEMORY {
        return Check::pass("memory", observed);
    }
    Check::fail("memory", observed, "give the machine 1 GiB of memory")
}

/// This machine's memory, bytes; 0 where it is not said.
pub fn memory_bytes() -> u64 {
    memory_of(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

/// `MemTotal` in the text of `/proc/meminfo` (proc(5)).
fn memory_of(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    total.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// Whether there is a processor.
pub fn processors(count: u32) -> Check {
    let observed = format!("{count} processors");
    if count >= 1 {
        return Check::pass("cpu", observed);
    }
    Check::fail("cpu", observed, "give the machine a processor")
}

/// Whether memory limits mean what they say.
pub fn swap(is_on: bool) -> Check {
    if is_on {
        return Check::warn("swap", "on", "pods' memory limits do not count swap: swapoff -a");
    }
    Check::pass("swap", "off")
}

/// Whether this machine swaps.
pub fn swap_is_on() -> bool {
    fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}

/// Whether containerd, kubelet and pods can watch their files.
pub fn inotify(instances: u64) -> Check {
    let observed = format!("{instances} instances");
    if instances >= INOTIFY_INSTANCES {
        return Check::pass("inotify", observed);
    }
    Check::warn("inotify", observed, "sysctl -w fs.inotify.max_user_instances=8192")
}

/// `fs.inotify.max_user_instances` of this machine.
pub fn inotify_instances() -> u64 {
    let text = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Whether a process may open as many files as a gateway needs; `highest`: it may have so many, if the kernel says.
pub fn open_files(highest: Option<u64>, wanted: u64) -> Check {
    match highest {
        Some(highest) if highest < wanted => Check::warn(
            "files",
            format!("a process may open {highest} files at most, and each connection through the gateway takes two"),
            format!("start it with more: ulimit -Hn {wanted}, or LimitNOFILE in its systemd unit"),
        ),
        _ => Check::pass("files", "a process may open enough files"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn room_is_judged_by_what_is_needed_and_by_its_part_of_the_whole() {
        let needs =
            DiskNeeds { least: 2 * GIB, remedy: "r", ample: 5 * GIB, ample_percent: 15, consequence: "c", advice: "a" };
        let judged = |free, total| disk(Path::new("/d"), Some(Space { free, total }), &needs);
        assert_eq!(judged(2 * GIB - 1, GIB * 8).status, Verdict::Fail);
        assert!(judged(GIB, GIB * 8).observed.starts_with("disk too small: 1.0 GiB free in /d; 2 GiB"));
        assert_eq!(judged(5 * GIB - 1, GIB * 8), Check::warn("disk", "5.0 GiB free in /d: c", "a"));
        assert_eq!(judged(5 * GIB, GIB * 100).status, Verdict::Warn);
        assert_eq!(judged(15 * GIB, GIB * 100).status, Verdict::Pass);
        assert_eq!(disk(Path::new("/d"), None, &needs).status, Verdict::Warn);
        assert!(Space::of(Path::new("/no/such/place")).is_some_and(|space| space.total > 0));
    }

    #[test]
    fn texts_of_the_machine_are_read() {
        assert_eq!(memory_of("MemTotal:       2048 kB\nMemFree: 1 kB\n"), 2 * MIB);
        assert!(memory_bytes() > 1 << 28 && inotify_instances() > 0);
    }

    #[test]
    fn few_descriptors_are_worth_a_word() {
        assert_eq!(open_files(Some(65_535), 65_536).status, Verdict::Warn);
        assert_eq!(open_files(Some(65_536), 65_536).status, Verdict::Pass);
        assert_eq!(open_files(None, 65_536).status, Verdict::Pass);
    }
}
