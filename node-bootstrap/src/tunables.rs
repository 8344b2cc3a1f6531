//! Kernel values that kubelet sets for itself and leaves so: what they were is remembered, for the day the machine is no node any more.

use std::fs;
use std::path::{Path, PathBuf};

/// Below `/proc/sys`, with what kubelet wants (its `setupKernelTunables`, Kubernetes 1.36).
const WANTED: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Those that kubelet will change, as they are now.
pub fn before() -> Vec<(PathBuf, String)> {
    below(Path::new("/proc/sys"))
}

fn below(sys: &Path) -> Vec<(PathBuf, String)> {
    let read = |(name, wanted): &(&str, &str)| {
        let path = sys.join(name);
        let now = fs::read_to_string(&path).ok()?.trim().to_owned();
        (now != *wanted).then_some((path, now))
    };
    WANTED.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_kubelet_will_change_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("vm")).unwrap();
        fs::write(dir.path().join("vm/overcommit_memory"), "0\n").unwrap();
        fs::write(dir.path().join("vm/panic_on_oom"), "0\n").unwrap();
        assert_eq!(below(dir.path()), [(dir.path().join("vm/overcommit_memory"), "0".to_owned())]);
    }
}
