//! The removal of a tree of cgroups that somebody else made, as deep and as wide as they liked.
//!
//! Every step is relative to an open directory: the whole path may be longer than the kernel takes (`PATH_MAX`). There is one descriptor,
//! whatever the depth, and no recursion; the way back up is `..`, which nobody moves once all processes are gone.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// A directory on the way down: its name, and the children that still have children of their own.
struct Level {
    name: CString,
    full: Vec<CString>,
}

/// Removes a cgroup and all below it, as far as no process is in them.
pub fn remove(dir: &Path) {
    // Nothing to do where it is gone, and what is in use stays.
    walk(dir).ok();
    std::fs::remove_dir(dir).ok();
}

fn walk(top: &Path) -> nix::Result<()> {
    let mut here: OwnedFd = nix::fcntl::open(top, DIRECTORY, Mode::empty())?;
    let mut way = vec![Level { name: CString::default(), full: clear(&here)? }];
    while let Some(level) = way.last_mut() {
        if let Some(name) = level.full.pop() {
            let Ok(below) = openat(&here, name.as_c_str(), DIRECTORY, Mode::empty()) else { continue };
            here = below;
            way.push(Level { name, full: clear(&here)? });
            continue;
        }
        let done = way.pop();
        if let (Some(level), false) = (done, way.is_empty()) {
            here = openat(&here, "..", DIRECTORY, Mode::empty())?;
            unlinkat(&here, level.name.as_c_str(), UnlinkatFlags::RemoveDir).ok();
        }
    }
    Ok(())
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Removes the children that have none themselves, and names the others.
fn clear(dir: &OwnedFd) -> nix::Result<Vec<CString>> {
    let mut list = Dir::openat(dir, c".", DIRECTORY, Mode::empty())?;
    let children: Vec<CString> =
        list.iter().flatten().filter(is_child).map(|entry| entry.file_name().to_owned()).collect();
    let full = children.into_iter().filter(|name| {
        !matches!(unlinkat(dir, name.as_c_str(), UnlinkatFlags::RemoveDir), Ok(()) | Err(Errno::ENOENT))
    });
    Ok(full.collect())
}

fn is_child(entry: &nix::dir::Entry) -> bool {
    let dots: [&CStr; 2] = [c".", c".."];
    entry.file_type() == Some(Type::Directory) && !dots.contains(&entry.file_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_goes_and_what_lies_beside_it_stays() {
        let world = tempfile::tempdir().unwrap();
        let top = world.path().join("top");
        std::fs::create_dir_all(&top).unwrap();
        std::fs::create_dir(world.path().join("beside")).unwrap();
        for branch in ["one", "two"] {
            let mut dir: OwnedFd = std::fs::File::open(&top).unwrap().into();
            // Two hundred bytes a level: PATH_MAX is behind at the 20th.
            for name in std::iter::once(branch.to_owned()).chain((0..1000).map(|level| format!("{level:0200}"))) {
                nix::sys::stat::mkdirat(&dir, name.as_str(), Mode::S_IRWXU).unwrap();
                nix::sys::stat::mkdirat(&dir, format!("leaf-{branch}").as_str(), Mode::S_IRWXU).unwrap();
                dir = openat(&dir, name.as_str(), DIRECTORY, Mode::empty()).unwrap();
            }
        }
        remove(&top);
        let left: Vec<_> = std::fs::read_dir(world.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["beside"]);
        remove(&top);
    }
}
