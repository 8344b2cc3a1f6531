//! The log files of supervised processes: a file each, appended, for the owner and the owner's group, and never without bound.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::describe;
use crate::files::{self, FileError};

/// Logs name tenants, pods and images.
const MODE: u32 = 0o640;

/// How often logs are to be looked at.
pub const ROTATE_EVERY: Duration = Duration::from_secs(60);

/// Opens a log to append to, and makes its directory. One that was made open to others is closed.
///
/// # Errors
/// When it cannot be made.
pub fn open(path: &Path) -> Result<File, FileError> {
    path.parent().map_or(Ok(()), files::make_dir)?;
    let file = OpenOptions::new().create(true).append(true).mode(MODE).open(path).map_err(files::io("open", path))?;
    file.set_permissions(fs::Permissions::from_mode(MODE)).map_err(files::io("protect", path))?;
    Ok(file)
}

/// Moves a log that is longer than `limit` bytes to `.1`, of which one is kept, by copying and truncating: whoever writes keeps its open file,
/// which appends. True when it was too long.
///
/// # Errors
/// When it cannot be copied or truncated, as on a full disk.
pub fn rotate(log: &Path, limit: u64) -> Result<bool, FileError> {
    if !fs::metadata(log).is_ok_and(|meta| meta.len() > limit) {
        return Ok(false);
    }
    let mut old = log.as_os_str().to_owned();
    old.push(".1");
    fs::copy(log, PathBuf::from(old)).map_err(files::io("copy", log))?;
    let truncated = OpenOptions::new().write(true).open(log).and_then(|file| file.set_len(0));
    truncated.map(|()| true).map_err(files::io("truncate", log))
}

/// Rotates each of these logs; one that cannot be is told and does not keep the others from it.
pub fn rotate_all(logs: impl IntoIterator<Item = PathBuf>, limit: u64) {
    for log in logs {
        if let Err(error) = rotate(&log, limit) {
            tracing::warn!("{} grows: {}", log.display(), describe(&error));
        }
    }
}

/// The files of a directory that end in `.log`.
pub fn find(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_long_log_is_set_aside_under_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("logs/etcd.log");
        let mut etcd = open(&log).unwrap();
        etcd.write_all(b"0123456789").unwrap();
        assert!(!rotate(&log, 10).unwrap() && rotate(&log, 9).unwrap());
        etcd.write_all(b"next").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "next");
        let old = dir.path().join("logs/etcd.log.1");
        assert_eq!(fs::read_to_string(&old).unwrap(), "0123456789");
        for log in [&log, &old] {
            assert_eq!(fs::metadata(log).unwrap().permissions().mode() & 0o777, MODE, "{}", log.display());
        }
        assert_eq!(find(&dir.path().join("logs")), [log]);
    }

    #[test]
    fn a_log_that_was_open_to_others_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("node.log");
        fs::write(&log, "").unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o644)).unwrap();
        open(&log).unwrap();
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, MODE);
    }
}
