//! A `/dev` of the machine's own: the harmless devices, terminals and shared memory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};

use super::root::{attach, bind};
use crate::error::LocalError;

/// Name, major and minor number (Linux allocated devices, devices.txt).
pub const DEVICES: [(&str, u64, u64); 8] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("fuse", 10, 229),
    ("net/tun", 10, 200),
];
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Builds `/dev` below `root`. In a user namespace nobody makes devices: there the outside's are shown, as far as it has them.
pub fn build(root: &Path, isolated: bool) -> Result<(), LocalError> {
    let dev = root.join("dev");
    attach("tmpfs", &dev, MsFlags::MS_NOSUID, Some("mode=0755"))?;
    fs::create_dir_all(dev.join("net")).map_err(LocalError::file(dev.join("net")))?;
    if isolated {
        show(&dev)?
    } else {
        make(&dev)?
    }
    for (target, name) in LINKS {
        symlink(target, dev.join(name)).map_err(LocalError::file(dev.join(name)))?;
    }
    attach("devpts", &dev.join("pts"), MsFlags::empty(), Some("newinstance,ptmxmode=0666,mode=0620,gid=5"))?;
    attach("tmpfs", &dev.join("shm"), MsFlags::empty(), Some("mode=1777"))?;
    attach("mqueue", &dev.join("mqueue"), MsFlags::empty(), None)?;
    if isolated {
        // The kernel's log tells of everybody: kubelet does without in a user namespace.
        return Ok(());
    }
    // kubelet reads the kernel's log for out-of-memory kills.
    let log = dev.join("kmsg");
    fs::write(&log, "").map_err(LocalError::file(&log))?;
    bind(Path::new("/dev/kmsg"), &log)
}

fn make(dev: &Path) -> Result<(), LocalError> {
    let mask = umask(Mode::empty());
    for (name, major, minor) in DEVICES {
        let path = dev.join(name);
        mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))
            .map_err(LocalError::call(format!("make {name}")))?;
    }
    umask(mask);
    Ok(())
}

fn show(dev: &Path) -> Result<(), LocalError> {
    for (name, ..) in DEVICES {
        let (outside, path) = (Path::new("/dev").join(name), dev.join(name));
        if outside.exists() {
            fs::write(&path, "").map_err(LocalError::file(&path))?;
            bind(&outside, &path)?;
        }
    }
    Ok(())
}
