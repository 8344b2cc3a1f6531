//! The kernel values that kubelet and local machines change: what they were is remembered, and put back once nobody of ours needs them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::files::{self, FileError};

/// A kernel value that one of our programs changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sysctl {
    /// Below `/proc/sys`.
    pub name: &'static str,
    /// What it is set to.
    pub value: &'static str,
}

impl Sysctl {
    const fn new(name: &'static str, value: &'static str) -> Self {
        Self { name, value }
    }

    fn path(self, sys: &Path) -> PathBuf {
        sys.join(self.name)
    }
}

/// Lets packets pass from one interface to another.
pub const IP_FORWARD: Sysctl = Sysctl::new("net/ipv4/ip_forward", "1");

/// What kubelet sets for itself and leaves so (its `setupKernelTunables`, Kubernetes 1.36).
pub const KUBELET: [Sysctl; 6] = [
    Sysctl::new("vm/overcommit_memory", "1"),
    Sysctl::new("vm/panic_on_oom", "0"),
    Sysctl::new("kernel/panic", "10"),
    Sysctl::new("kernel/panic_on_oops", "1"),
    Sysctl::new("kernel/keys/root_maxkeys", "1000000"),
    Sysctl::new("kernel/keys/root_maxbytes", "25000000"),
];

/// What local machines need at least. Each takes eight inotify instances (containerd, kubelet and their pods): the kernel's default of 128
/// serves 15 machines.
pub const LOCAL_MACHINES: [Sysctl; 2] = [Sysctl::new("fs/inotify/max_user_instances", "8192"), IP_FORWARD];

const SYS: &str = "/proc/sys";

/// Those that will be changed, by their file and as they are now.
pub fn before(values: &[Sysctl]) -> BTreeMap<PathBuf, String> {
    before_below(Path::new(SYS), values)
}

fn before_below(sys: &Path, values: &[Sysctl]) -> BTreeMap<PathBuf, String> {
    let read = |sysctl: &Sysctl| {
        let path = sysctl.path(sys);
        let now = fs::read_to_string(&path).ok()?.trim().to_owned();
        (now != sysctl.value).then_some((path, now))
    };
    values.iter().filter_map(read).collect()
}

/// Sets a value where it is lower.
///
/// # Errors
/// When it cannot be read or written, as in a container.
pub fn raise(sysctl: Sysctl) -> Result<(), FileError> {
    let path = sysctl.path(Path::new(SYS));
    let now = files::read_text(&path)?;
    let (now, least) = (now.trim().parse::<u64>(), sysctl.value.parse::<u64>());
    if matches!((now, least), (Ok(now), Ok(least)) if now >= least) {
        return Ok(());
    }
    fs::write(&path, sysctl.value).map_err(files::io("write", &path))
}

/// Writes down in `file` what these values are, but for those that are written down already: somebody before us may have changed them by now.
///
/// # Errors
/// When the file cannot be read or written.
pub fn remember(file: &Path, values: &[Sysctl]) -> Result<(), FileError> {
    remember_below(Path::new(SYS), file, values)
}

fn remember_below(sys: &Path, file: &Path, values: &[Sysctl]) -> Result<(), FileError> {
    // Before the file is read: what another process of ours changes, it writes down first.
    let now = values.iter().map(|sysctl| sysctl.path(sys));
    let now: Vec<_> = now.filter_map(|path| Some((fs::read_to_string(&path).ok()?.trim().to_owned(), path))).collect();
    let mut all: BTreeMap<PathBuf, String> = files::read_json(file)?.unwrap_or_default();
    let known = all.len();
    for (value, path) in now {
        all.entry(path).or_insert(value);
    }
    if all.len() == known { Ok(()) } else { files::write_json(file, &all, 0o644) }
}

/// Puts back what is written down in `file`, and removes it. A value that is no longer what we set it to is somebody else's by now, and stays.
pub fn restore(file: &Path) {
    restore_below(Path::new(SYS), file);
}

fn restore_below(sys: &Path, file: &Path) {
    let before: BTreeMap<PathBuf, String> = files::read_json(file).ok().flatten().unwrap_or_default();
    for sysctl in KUBELET.iter().chain(&LOCAL_MACHINES) {
        let path = sysctl.path(sys);
        let is_ours = fs::read_to_string(&path).is_ok_and(|now| now.trim() == sysctl.value);
        if let (Some(value), true) = (before.get(&path), is_ours) {
            fs::write(&path, value).ok();
        }
    }
    let _ = fs::remove_file(file);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(sys: &Path, name: &str, value: &str) {
        let path = sys.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value).unwrap();
    }

    #[test]
    fn only_what_will_be_changed_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        set(dir.path(), "vm/overcommit_memory", "0\n");
        set(dir.path(), "vm/panic_on_oom", "0\n");
        let noted: Vec<_> = before_below(dir.path(), &KUBELET).into_iter().collect();
        assert_eq!(noted, [(dir.path().join("vm/overcommit_memory"), "0".to_owned())]);
    }

    #[test]
    fn what_was_changed_goes_back_and_what_others_changed_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (sys, file) = (dir.path().join("sys"), dir.path().join("run/sysctl.json"));
        fs::create_dir(dir.path().join("run")).unwrap();
        let get = |name: &str| fs::read_to_string(sys.join(name)).unwrap();
        let names = ["vm/overcommit_memory", "kernel/panic", "net/ipv4/ip_forward", "fs/inotify/max_user_instances"];
        for (name, value) in names.iter().zip(["0\n", "0\n", "0\n", "128\n"]) {
            set(&sys, name, value);
        }
        remember_below(&sys, &file, &KUBELET).unwrap();
        set(&sys, "vm/overcommit_memory", "1");
        set(&sys, "kernel/panic", "10");
        // Local machines are offered later, and another instance comes.
        remember_below(&sys, &file, &LOCAL_MACHINES).unwrap();
        set(&sys, "fs/inotify/max_user_instances", "8192");
        remember_below(&sys, &file, &KUBELET).unwrap();
        remember_below(&sys, &file, &LOCAL_MACHINES).unwrap();
        set(&sys, "kernel/panic", "60");
        restore_below(&sys, &file);
        assert_eq!(get("vm/overcommit_memory"), "0");
        assert_eq!(get("fs/inotify/max_user_instances"), "128");
        assert_eq!(get("kernel/panic"), "60", "somebody else's by now");
        assert_eq!(get("net/ipv4/ip_forward"), "0\n", "nobody changed it");
        assert!(!file.exists());
        restore_below(&sys, &file);
    }
}
