//! The mount table of this process, `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

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
}
