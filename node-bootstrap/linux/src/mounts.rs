//! The mount table of this process, `/proc/self/mountinfo` (proc_pid_mountinfo(5)), and unmounting.
//!
//! Removing a tree that still has something mounted in it would remove what is mounted (a remote disk, another pod's volume), so whoever
//! takes an instance or a node off a machine goes through here.

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use crate::files::{self, FileError};

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Options of this mount, such as `noexec`.
    pub flags: String,
    /// The file system's type.
    pub kind: String,
    /// Its own options, such as the controllers of a cgroup v1 hierarchy.
    pub options: String,
}

/// Everything mounted in this mount namespace, in mount order.
///
/// # Errors
/// When `/proc` is not there.
pub fn list() -> io::Result<Vec<Mount>> {
    fs::read("/proc/self/mountinfo").map(|text| parse(&text))
}

/// Parses the text of `mountinfo`.
pub fn parse(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// The mount on which a path lies: of those above it the deepest, and of several at one place the youngest.
pub fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.components().count())
}

/// Mount points below any of `dirs`, deepest and youngest first. What is mounted *at* one of them is its owner's: a disk for this
/// directory, say.
///
/// # Errors
/// When `/proc` is not there.
pub fn points_below(dirs: &[PathBuf]) -> Result<Vec<PathBuf>, FileError> {
    points(|point| dirs.iter().any(|dir| point.starts_with(dir) && point != dir))
}

/// Mount points at or below `dir`, deepest and youngest first.
///
/// # Errors
/// When `/proc` is not there.
pub fn points_at_or_below(dir: &Path) -> Result<Vec<PathBuf>, FileError> {
    points(|point| point.starts_with(dir))
}

fn points(is_wanted: impl Fn(&PathBuf) -> bool) -> Result<Vec<PathBuf>, FileError> {
    let mut points: Vec<PathBuf> = all_points()?;
    points.retain(is_wanted);
    points.reverse();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    Ok(points)
}

fn all_points() -> Result<Vec<PathBuf>, FileError> {
    let mounts = list().map_err(files::io("read", Path::new("/proc/self/mountinfo")))?;
    Ok(mounts.into_iter().map(|mount| mount.point).collect())
}

/// Unmounts these, in this order; what is busy is detached.
pub fn unmount(points: &[PathBuf]) {
    for point in points {
        // A file name may have become "…//deleted" for a removed netns file; the kernel still takes the old name.
        if umount2(point.as_path(), MntFlags::UMOUNT_NOFOLLOW).is_err() {
            let _ = umount2(point.as_path(), MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH);
        }
    }
}

/// Unmounts everything below `dirs`. Returns what stays mounted all the same.
///
/// # Errors
/// When `/proc` is not there.
pub fn unmount_below(dirs: &[PathBuf]) -> Result<Vec<PathBuf>, FileError> {
    unmount(&points_below(dirs)?);
    points_below(dirs)
}

/// Removes a tree, never stepping into anything mounted. Returns the mount points that were left alone (their parents stay too).
///
/// # Errors
/// What cannot be read or removed.
pub fn remove_tree(dir: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mounted = all_points()?;
    let canonical = match fs::canonicalize(dir) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(files::io("find", dir)(error)),
    };
    let mut kept = Vec::new();
    remove_entry(&canonical, &mounted, &mut kept)?;
    Ok(kept)
}

fn remove_entry(path: &Path, mounted: &[PathBuf], kept: &mut Vec<PathBuf>) -> Result<(), FileError> {
    // By bytes: as paths, `x//deleted` and `x/deleted` are one.
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

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = unescape(fields.nth(3)?);
    let point = unescape(fields.next()?);
    let flags = String::from_utf8_lossy(fields.next()?).into_owned();
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(rest.next()?).into_owned();
    let options = String::from_utf8_lossy(rest.nth(1).unwrap_or_default()).into_owned();
    Some(Mount { root, point, flags, kind, options })
}

/// mountinfo writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let escape = field.get(at + 1..at + 4).filter(|_| field[at] == b'\\');
        let byte = escape.and_then(|octal| u8::from_str_radix(std::str::from_utf8(octal).ok()?, 8).ok());
        plain.push(byte.unwrap_or(field[at]));
        at += if byte.is_some() { 4 } else { 1 };
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use nix::mount::{MsFlags, mount};

    use super::*;

    const SAMPLE: &[u8] = b"29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        36 35 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        40 29 0:44 /a\\040b /mnt/with\\040space rw,noexec shared:2 master:1 - tmpfs tmpfs rw,size=4k\n\
        41 29 0:45 / /mnt rw shared:3 - tmpfs tmpfs rw\n";

    #[test]
    fn mountinfo_is_parsed_with_its_escapes_and_optional_fields() {
        let mounts = parse(SAMPLE);
        assert_eq!(mounts.len(), 4);
        assert_eq!((mounts[1].kind.as_str(), mounts[1].options.as_str()), ("cgroup", "rw,memory"));
        assert_eq!(mounts[2].point, Path::new("/mnt/with space"));
        assert_eq!((mounts[2].root.as_path(), mounts[2].flags.as_str()), (Path::new("/a b"), "rw,noexec"));
    }

    #[test]
    fn a_path_lies_on_the_deepest_mount_above_it() {
        let mounts = parse(SAMPLE);
        let at = |path: &str| holding(&mounts, Path::new(path)).unwrap().point.clone();
        assert_eq!(at("/mnt/with space/x"), Path::new("/mnt/with space"));
        assert_eq!(at("/mnt/within"), Path::new("/mnt"));
        assert_eq!(at("/mntx"), Path::new("/"));
    }
    /// Root can; without it nothing could be proven here.
    fn mount_tmpfs(at: &Path) {
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
    }

    #[test]
    fn removing_a_tree_never_crosses_a_mount() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let inside = tree.join("pods/volume");
        fs::create_dir_all(&inside).unwrap();
        fs::write(tree.join("file"), "ours").unwrap();
        mount_tmpfs(&inside);
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
        mount_tmpfs(&outer);
        fs::create_dir(outer.join("inner")).unwrap();
        mount_tmpfs(&outer.join("inner"));
        mount_tmpfs(&outer.join("inner"));
        assert_eq!(
            points_below(std::slice::from_ref(&outer)).unwrap().len(),
            2,
            "what is mounted at the directory is its owner's"
        );
        let all = [dir.path().to_owned()];
        let points = points_below(&all).unwrap();
        assert_eq!(points.len(), 3);
        assert_eq!(points[2], outer);
        assert!(unmount_below(&all).unwrap().is_empty());
    }
    /// A mount whose path has a blank was not found, and then removed with what was in it.
    #[test]
    fn what_is_mounted_below_a_path_with_a_blank_is_unmounted() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("with a blank");
        let point = ours.join("machines/x");
        fs::create_dir_all(&ours).unwrap();
        mount_tmpfs(&ours);
        fs::create_dir_all(&point).unwrap();
        mount_tmpfs(&point);
        assert_eq!(points_at_or_below(&ours).unwrap(), [point.clone(), ours.clone()]);
        unmount(&points_at_or_below(&ours).unwrap());
        assert_eq!(points_at_or_below(&ours).unwrap(), Vec::<PathBuf>::new());
    }
}
