//! What a process inherits from whoever started it, settled once: the file mode mask and the search path.
//!
//! An administrator's shell may have a mask of 027 or 077, under which containers that do not run as root cannot read their own files; and
//! `su` without `-` keeps a user's search path, in which `nft`, `ip` and `modprobe` are not.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::stat::{Mode, umask};

/// Where Debian keeps the tools of administrators (FHS 3.0, 3.16 and 4.10).
const ADMINISTRATORS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// What tells a program to reach others by an HTTP proxy. Both spellings count (curl(1), `net/http.ProxyFromEnvironment`).
pub const PROXY_VARIABLES: [&str; 8] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"];

/// Gives this process and all it starts the mask 022 and a search path with the administrators' directories. Where the path lacks them the
/// program is executed again with a whole one, so this comes first in `main`, before threads and files.
///
/// # Errors
/// When the program cannot be executed again.
pub fn settle() -> io::Result<()> {
    // Files that others must not read say so themselves.
    umask(Mode::from_bits_truncate(0o022));
    let Some(path) = completed(std::env::var_os("PATH").as_deref()) else { return Ok(()) };
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    Err(Command::new(std::env::current_exe()?).arg0(name).args(arguments).env("PATH", path).exec())
}

/// The search path with what it lacks; nothing where it lacks nothing.
fn completed(path: Option<&OsStr>) -> Option<OsString> {
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Some("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    };
    let known: Vec<_> = std::env::split_paths(path).collect();
    let mut whole = path.to_owned();
    for dir in ADMINISTRATORS.iter().filter(|dir| !known.iter().any(|one| one.as_os_str() == **dir)) {
        whole.push(":");
        whole.push(dir);
    }
    (whole != path).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> Option<String> {
        completed(Some(OsStr::new(path))).map(|path| path.into_string().unwrap())
    }

    #[test]
    fn a_users_search_path_gets_the_administrators_tools() {
        assert_eq!(of("/usr/local/bin:/usr/bin:/bin").unwrap(), "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        assert_eq!(of("/usr/sbin:/usr/bin").unwrap(), "/usr/sbin:/usr/bin:/sbin");
        assert_eq!(of("/sbin:/usr/sbin"), None, "executed again once and not for ever");
        assert!(completed(None).unwrap().to_string_lossy().contains("/usr/sbin"));
        assert_eq!(of(&of("/bin").unwrap()), None);
    }
}
