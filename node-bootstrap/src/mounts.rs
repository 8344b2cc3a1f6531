//! What is mounted where, and taking it down deepest first.
//!
//! Removing a tree that still has something mounted in it would remove what is mounted (a remote disk, another pod's volume), so
//! both `halt` and `reset` go through here.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use node_linux::mounts;
pub use node_linux::mounts::{Mount, parse};

use crate::files::{self, FileError};

/// Everything mounted in this mount namespace, in mount order.
pub fn list() -> Result<Vec<Mount>, FileError> {
    mounts::list().map_err(files::io("read", Path::new("/proc/self/mountinfo")))
}

/// Mount points below any of `dirs`, deepest and youngest first. What is mounted *at* one of them is its owner's: a disk for this
/// directory, say.
pub fn below(dirs: &[PathBuf]) -> Result<Vec<PathBuf>, FileError> {
    let mut points: Vec<PathBuf> = list()?.into_iter().map(|mount| mount.point).collect();
    points.retain(|point| dirs.iter().any(|dir| point.starts_with(dir) && point != dir));
    points.reverse();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    Ok(points)
}

/// Unmounts everything below `dirs`; what is busy is detached. Returns what stays mounted all the same.
pub fn unmount_below(dirs: &[PathBuf]) -> Result<Vec<PathBuf>, FileError> {
    for point in below(dirs)? {
        // A file name may have become "…//deleted" for a removed netns file; the kernel still takes the old name.
        if umount2(point.as_path(), MntFlags::UMOUNT_NOFOLLOW).is_err() {
            let _ = umount2(point.as_path(), MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH);
        }
    }
    below(dirs)
}

/// Removes a tree, never stepping into anything mounted. Returns the mount points that were left alone (their parents stay too).
pub fn remove_tree(dir: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mounted: Vec<PathBuf> = list()?.into_iter().map(|mount| mount.point).collect();
    let canonical = match fs::canonicalize(dir) {
        Ok(path) => path,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(files::io("find", dir)(error)),
    };
    let mut kept = Vec::new();
    remove_entry(&canonical, &mounted, &mut kept)?;
    Ok(kept)
}

fn remove_entry(path: &Path, mounted: &[PathBuf], kept: &mut Vec<PathBuf>) -> Result<(), FileError> {
    if mounted.iter().any(|point| point.as_os_str().as_bytes() == path.as_os_str().as_bytes()) {
        kept.push(path.to_owned());
        return Ok(());
    }
    let meta = fs::symlink_metadata(path).map_err(files::io("look at", path))?;
    if !meta.is_dir() {
        return fs::remove_file(path).map_err(files::io("remove", path));
    }
    let before = kept.len();
    for entry in fs::read_dir(path).map_err(files::io("list", path))? {
        remove_entry(&entry.map_err(files::io("list", path))?.path(), mounted, kept)?;
    }
    if kept.len() > before {
        return Ok(());
    }
    fs::remove_dir(path).map_err(files::io("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MsFlags, mount};

    fn tmpfs(at: &Path) -> bool {
        let data = Some("size=64k");
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), data).is_ok()
    }

    #[test]
    fn removing_a_tree_never_crosses_a_mount() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let inside = tree.join("pods/volume");
        fs::create_dir_all(&inside).unwrap();
        fs::write(tree.join("file"), "ours").unwrap();
        if !tmpfs(&inside) {
            return; // not root: nothing can be mounted, so nothing can be proven here
        }
        fs::write(inside.join("precious"), "theirs").unwrap();
        let kept = remove_tree(&tree).unwrap();
        assert_eq!(kept, vec![inside.clone()]);
        assert!(inside.join("precious").exists());
        assert!(!tree.join("file").exists());
        assert!(unmount_below(std::slice::from_ref(&tree)).unwrap().is_empty());
        assert!(remove_tree(&tree).unwrap().is_empty());
        assert!(!tree.exists());
    }

    #[test]
    fn stacked_mounts_come_down_deepest_first() {
        let dir = tempfile::tempdir().unwrap();
        let outer = dir.path().join("outer");
        fs::create_dir_all(&outer).unwrap();
        if !tmpfs(&outer) {
            return;
        }
        fs::create_dir(outer.join("inner")).unwrap();
        assert!(tmpfs(&outer.join("inner")) && tmpfs(&outer.join("inner")));
        assert_eq!(
            below(std::slice::from_ref(&outer)).unwrap().len(),
            2,
            "what is mounted at the directory is its owner's"
        );
        let all = [dir.path().to_owned()];
        let points = below(&all).unwrap();
        assert_eq!(points.len(), 3);
        assert_eq!(points[2], outer);
        assert!(unmount_below(&all).unwrap().is_empty());
    }
}
