//! Files that are either the old text or the new one, never half of it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Serialize, de::DeserializeOwned};

/// Keeps two writers of one process apart.
static DRAFTS: AtomicU64 = AtomicU64::new(0);

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading, writing, renaming or making a directory failed.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The text of a JSON file is not what it should be.
    #[error("read {path}: not valid JSON of the expected shape")]
    Json {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
}

/// Names the action and the path of an IO error.
pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError::Io { action, path, source }
}

/// Makes a directory and its parents.
pub fn make_dir(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(io("make directory", path))
}

/// Makes a directory that only its owner may enter.
pub fn make_private_dir(path: &Path) -> Result<(), FileError> {
    make_dir(path)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(path, mode).map_err(io("protect", path))
}

/// Replaces a file atomically and durably: a reader, or a crash, sees the old or the new contents. `mode` is its permission bits.
pub fn write(path: &Path, contents: &[u8], mode: u32) -> Result<(), FileError> {
    remove_stale_drafts(path);
    let draft = draft_of(path);
    let renamed = |()| fs::rename(&draft, path).and_then(|()| sync_dir(path));
    write_draft(&draft, contents, mode).and_then(renamed).map_err(io("write", path))
}

/// Like [`write()`], for a file that everybody may read; makes its directory.
pub fn write_public(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    make_dir(path.parent().unwrap_or(path))?;
    write(path, contents, 0o644)
}

/// Like [`write()`], for a file that nobody but its owner reads; makes its directory.
pub fn write_secret(path: &Path, contents: &[u8]) -> Result<(), FileError> {
    make_dir(path.parent().unwrap_or(path))?;
    write(path, contents, 0o600)
}

/// Like [`write()`], but leaves a file alone that has these contents already. True when it wrote.
pub fn write_if_changed(path: &Path, contents: &[u8], mode: u32) -> Result<bool, FileError> {
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(false);
    }
    write(path, contents, mode).map(|()| true)
}

/// Puts a file's name on disk: without it a power cut may bring the old one back.
fn sync_dir(path: &Path) -> std::io::Result<()> {
    File::open(parent_of(path))?.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `<name>.new-<process>-<number>`, beside the file: only within one file system is rename(2) atomic.
fn draft_of(path: &Path) -> PathBuf {
    let mut name = draft_prefix(path);
    name.push(format!("{}-{}", std::process::id(), DRAFTS.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

fn draft_prefix(path: &Path) -> OsString {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new-");
    name
}

/// Removes what writers of this file left that were killed in the middle: it may be half of a secret.
fn remove_stale_drafts(path: &Path) {
    let prefix = draft_prefix(path).to_string_lossy().into_owned();
    for entry in fs::read_dir(parent_of(path)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(&prefix).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn write_draft(path: &Path, contents: &[u8], mode: u32) -> std::io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Writes a value as JSON, atomically.
pub fn write_json<T: Serialize>(path: &Path, value: &T, mode: u32) -> Result<(), FileError> {
    let text = serde_json::to_vec_pretty(value).map_err(|source| FileError::Json { path: path.to_owned(), source })?;
    write(path, &text, mode)
}

/// Reads a JSON file; `None` when there is none.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", path)(error)),
    };
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|source| FileError::Json { path: path.to_owned(), source })
}

/// Reads a whole text file.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(io("read", path))
}

/// Points `link` at `target`, replacing what was there in one step.
pub fn relink(target: &Path, link: &Path) -> Result<(), FileError> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    let draft = draft_of(link);
    let _ = fs::remove_file(&draft);
    let placed = symlink(target, &draft).and_then(|()| fs::rename(&draft, link));
    placed.map_err(io("link", link))
}

/// Removes a file; absent is fine. True when it was there.
pub fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io("remove", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_write_replaces_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write(&path, b"old", 0o644).unwrap();
        write(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!write_if_changed(&path, b"new", 0o600).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_draft_goes_with_the_next_write_once_its_writer_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.json");
        // Above the kernel's highest process id, 2^22 (proc_sys_kernel(5), "pid_max").
        fs::write(dir.path().join("secret.json.new-4194305-0"), "half").unwrap();
        let living = dir.path().join(format!("secret.json.new-{}-999999", std::process::id()));
        fs::write(&living, "another thread's").unwrap();
        write(&path, b"whole", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(living.exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_broken_json_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        fs::write(&path, "{").unwrap();
        let error = read_json::<serde_json::Value>(&path).unwrap_err();
        assert!(error.to_string().contains("x.json"));
        assert!(read_json::<serde_json::Value>(&dir.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn a_link_moves_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("current");
        relink(Path::new("1"), &link).unwrap();
        relink(Path::new("2"), &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("2"));
    }

    #[test]
    fn a_secret_is_its_owners_and_no_draft_is_left() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/secret.json");
        write_secret(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1);
    }
}
