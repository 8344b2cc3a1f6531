//! A file that is known to be writable before what it is for is requested: what cannot be kept must not be issued.

use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{CliError, Result};

/// An empty file, readable by its owner only; it is removed again unless [`Draft::save`] succeeds.
pub struct Draft {
    file: File,
    at: PathBuf,
    target: PathBuf,
    saved: bool,
}

impl Draft {
    /// Creates `path`; with `replace` a temporary file beside the one that is there, which stays as it is until the end.
    ///
    /// # Errors
    /// The file exists and is not to be replaced, is not a regular file, or cannot be created.
    pub fn create(path: &Path, replace: bool) -> Result<Self> {
        let (at, target) = match fs::symlink_metadata(path) {
            Err(_) => (path.to_owned(), path.to_owned()),
            Ok(_) if !replace => return Err(exists(path)),
            Ok(_) => beside(path)?,
        };
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&at);
        let file = opened.map_err(|source| match source.kind() {
            ErrorKind::AlreadyExists => exists(&at),
            _ => unwritable(path, &source),
        })?;
        Ok(Draft { file, at, target, saved: false })
    }

    /// Writes the contents and gives the file its name.
    ///
    /// # Errors
    /// Those of the file system, such as a full disk; nothing is left then.
    pub fn save(mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.sync_all()?;
        if self.at != self.target {
            fs::rename(&self.at, &self.target)?;
        }
        self.saved = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.saved {
            // An empty file that cannot be removed harms nobody.
            let _ = fs::remove_file(&self.at);
        }
    }
}

/// A temporary path in the same directory, and the file to replace: a symbolic link stays one.
fn beside(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let target = fs::canonicalize(path).map_err(|source| unwritable(path, &source))?;
    let name = target.file_name().filter(|_| target.is_file()).ok_or_else(|| {
        CliError::usage(format!("{} is not a regular file", path.display()), "Specify another file with --out.")
    })?;
    let name = format!(".{}.{}", name.to_string_lossy(), std::process::id());
    Ok((target.with_file_name(name), target))
}

fn exists(path: &Path) -> CliError {
    CliError::usage(
        format!("{} already exists, and nothing was issued", path.display()),
        "Specify another file with --out, or replace this one with --force.",
    )
}

fn unwritable(path: &Path, source: &Error) -> CliError {
    CliError::usage(
        format!("cannot write {}: {source}; nothing was issued", path.display()),
        "Specify a file in a directory that exists and is writable.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn a_draft_that_is_not_saved_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        drop(Draft::create(&path, false).unwrap());
        assert_eq!(names(dir.path()), Vec::<String>::new());
        fs::write(&path, "old").unwrap();
        assert!(Draft::create(&path, false).is_err());
        drop(Draft::create(&path, true).unwrap());
        assert_eq!((names(dir.path()), fs::read_to_string(&path).unwrap()), (vec!["new".to_owned()], "old".to_owned()));
    }

    #[test]
    fn a_file_is_replaced_whole_and_a_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&path, "old").unwrap();
        symlink(&path, &link).unwrap();
        Draft::create(&link, true).unwrap().save(b"new").unwrap();
        assert!(link.is_symlink() && names(dir.path()).len() == 2);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Draft::create(dir.path(), true).is_err(), "a directory");
        assert!(Draft::create(&dir.path().join("none/file"), false).is_err());
    }
}
