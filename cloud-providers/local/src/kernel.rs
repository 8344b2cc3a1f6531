//! The three system calls that no library of ours wraps: an idmapped mount, a seccomp filter, and the bounding set of capabilities.
//!
//! Each takes plain values or borrowed descriptors, keeps no pointer after it returns, and answers the kernel's error number.
#![expect(unsafe_code, reason = "system calls without a safe wrapper; nothing else is in this module")]

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use crate::error::LocalError;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// mount_setattr(2): `MOUNT_ATTR_RDONLY` and `MOUNT_ATTR_IDMAP`.
const READ_ONLY: u64 = 0x1;
const IDMAP: u64 = 0x0010_0000;
/// open_tree(2): a copy of the mount instead of a handle to it.
const OPEN_TREE_CLONE: libc::c_uint = 1;
/// move_mount(2): the source is the descriptor itself.
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

fn path(path: &Path) -> Result<CString, LocalError> {
    let bytes = path.as_os_str().as_bytes();
    CString::new(bytes).map_err(|_| LocalError::call("use a path with a zero byte")(Errno::EINVAL))
}

fn checked(answer: libc::c_long, what: impl Into<String>) -> Result<libc::c_long, LocalError> {
    Errno::result(answer).map_err(LocalError::call(what))
}

/// A copy of the mount that shows a file or directory, attached nowhere yet (open_tree(2)).
///
/// # Errors
/// [`LocalError::Call`].
pub fn copy_mount(source: &Path) -> Result<OwnedFd, LocalError> {
    let from = path(source)?;
    let cloexec = libc::c_uint::try_from(libc::O_CLOEXEC).unwrap_or(0);
    // SAFETY: a zero-terminated path that outlives the call.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, from.as_ptr(), OPEN_TREE_CLONE | cloexec) };
    let tree = checked(tree, format!("open {}", source.display()))?;
    let tree = i32::try_from(tree).map_err(|_| LocalError::call("open a mount")(Errno::EBADF))?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(tree) })
}

/// Makes such a copy of `source` read-only, with the owner `n` of the file system shown as the `n` of a user namespace (mount_setattr(2)).
///
/// # Errors
/// [`LocalError::Call`], with `EINVAL` from a file system or kernel (before 5.12) that cannot.
pub fn map_owners(mount: &OwnedFd, users: &OwnedFd, source: &Path) -> Result<(), LocalError> {
    let user_namespace = u64::try_from(users.as_raw_fd()).unwrap_or(0);
    let attr = MountAttr { set: READ_ONLY | IDMAP, clear: 0, propagation: 0, user_namespace };
    let size = std::mem::size_of::<MountAttr>();
    // SAFETY: the structure is the kernel's, lives through the call, and its size is told; the path is the empty string.
    let set = unsafe {
        let empty = c"".as_ptr();
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), empty, libc::AT_EMPTY_PATH, &raw const attr, size)
    };
    checked(set, format!("map the owners of {}", source.display())).map(drop)
}

/// Attaches such a copy (move_mount(2)).
///
/// # Errors
/// [`LocalError::Call`].
pub fn attach_mount(mount: &OwnedFd, target: &Path) -> Result<(), LocalError> {
    let to = path(target)?;
    // SAFETY: both paths are zero-terminated and outlive the call.
    let moved = unsafe {
        let empty = c"".as_ptr();
        let at = libc::AT_FDCWD;
        libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), empty, at, to.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH)
    };
    checked(moved, format!("mount {}", target.display())).map(drop)
}

/// Puts a filter before every system call of this process and of all it will ever start (seccomp(2)). It needs CAP_SYS_ADMIN in the
/// process's user namespace, and so leaves `no_new_privs` alone.
///
/// # Errors
/// [`LocalError::Call`].
pub fn install_filter(program: &[libc::sock_filter]) -> Result<(), LocalError> {
    let len = libc::c_ushort::try_from(program.len()).unwrap_or(libc::c_ushort::MAX);
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, which is `len` instructions long, and writes nothing.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    checked(answer, "install the seccomp filter").map(drop)
}

/// Takes a capability out of this process's bounding set (capabilities(7)): no program it starts ever has it.
///
/// # Errors
/// [`LocalError::Call`].
pub fn drop_capability(number: libc::c_ulong) -> Result<(), LocalError> {
    // SAFETY: prctl(2) with this option takes a number and no pointer.
    let answer = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
    checked(answer.into(), format!("give up capability {number}")).map(drop)
}
