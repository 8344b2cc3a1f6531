//! The file system on which programs and containers will lie.

use std::path::{Path, PathBuf};

use crate::check::{Check, Verdict};
use crate::mounts::{self, Mount};

/// Whether programs can be executed from `dir` and containers' layers can be kept in it. The directory need not exist yet; its nearest
/// parent is asked.
pub fn storage(id: &'static str, dir: &Path) -> Check {
    match mounts::list() {
        Ok(mounts) => judge(id, &mounts, dir, &existing(dir)),
        Err(error) => Check::warn(id, format!("the mount table is not readable: {error}"), "mount /proc"),
    }
}

/// Whether programs can be executed from `dir`; an overlay will do.
pub fn programs(id: &'static str, dir: &Path) -> Check {
    let here = mounts::list().unwrap_or_default();
    let place = existing(dir);
    let plain: Vec<Mount> = here.into_iter().map(|mount| Mount { kind: String::new(), ..mount }).collect();
    let judged = judge(id, &plain, dir, &place);
    if judged.status == Verdict::Pass {
        Check::pass(id, format!("programs run from {}", dir.display()))
    } else {
        judged
    }
}

/// The nearest parent that exists, without symbolic links.
fn existing(dir: &Path) -> PathBuf {
    dir.ancestors().find_map(|dir| dir.canonicalize().ok()).unwrap_or_else(|| PathBuf::from("/"))
}

fn judge(id: &'static str, mounts: &[Mount], dir: &Path, place: &Path) -> Check {
    let shown = dir.display();
    let Some(mount) = mounts::holding(mounts, place) else { return Check::pass(id, "no mount table") };
    let point = mount.point.display();
    let has = |flag: &str| mount.flags.split(',').any(|one| one == flag);
    if has("noexec") {
        let observed = format!("{shown} is on {point}, which is mounted noexec: nothing that is put there can run");
        return Check::fail(id, observed, format!("mount -o remount,exec {point}, and take noexec out of /etc/fstab"));
    }
    if has("ro") {
        let observed = format!("{shown} is on {point}, which is mounted read-only");
        return Check::fail(id, observed, format!("mount -o remount,rw {point}"));
    }
    if mount.kind == "overlay" {
        // "filesystem on … not supported as upperdir": the kernel's words for a container's layers on an overlay.
        let observed = format!("{shown} is on {point}, an overlay: containers' layers cannot be kept on one");
        return Check::fail(id, observed, format!("mount a file system of its own (ext4, xfs) on {shown}"));
    }
    Check::pass(id, format!("{shown} is on {}", mount.kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = b"1 0 0:1 / / rw - overlay overlay rw\n\
        2 1 254:1 / /var rw,nosuid,noexec - ext4 /dev/vdb rw\n\
        3 2 254:2 / /var/lib/data rw - ext4 /dev/vdc rw\n\
        4 1 254:3 / /ro ro,relatime - ext4 /dev/vdd ro\n";

    #[test]
    fn a_place_where_nothing_runs_is_named_with_its_remedy() {
        let mounts = mounts::parse(SAMPLE);
        let at = |path: &str| judge("storage", &mounts, Path::new(path), Path::new(path));
        let noexec = at("/var/lib/pilothouse-node");
        assert_eq!(noexec.status, Verdict::Fail);
        assert!(noexec.remediation.contains("remount,exec /var"), "{}", noexec.remediation);
        assert!(at("/opt").observed.contains("an overlay"));
        assert_eq!(at("/ro/x").status, Verdict::Fail);
        assert_eq!(at("/var/lib/data/node").status, Verdict::Pass);
    }

    #[test]
    fn a_directory_that_is_yet_to_be_made_lies_where_its_parent_does() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        assert_eq!(existing(&dir.path().join("link/a/b")), real.canonicalize().unwrap());
    }
}
