//! Whether a bundle is in use: each process that has it open holds a shared lock, which the kernel lets go of when the process dies.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::Result;
use crate::error::At;

/// Beside the manifest: what those who use the bundle lock.
pub(crate) const HOLD: &str = "hold";

/// Tells other processes that the bundle is in use, until dropped. Waits while one is looking whether it is.
pub(crate) fn hold(dir: &Path) -> Result<Option<Arc<File>>> {
    let file = match open_hold(dir) {
        Err(error) if [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem].contains(&error.kind()) => {
            return Ok(None);
        }
        other => other.at("open", &dir.join(HOLD))?,
    };
    file.lock_shared().at("lock", &dir.join(HOLD))?;
    Ok(Some(Arc::new(file)))
}

/// Opens what users of a bundle lock. It is its owner's alone: whoever may open a file may lock it, and everybody else would wait.
pub(crate) fn open_hold(dir: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).mode(0o600).open(dir.join(HOLD))
}
