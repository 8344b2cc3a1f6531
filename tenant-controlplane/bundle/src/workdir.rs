//! The directory a build works in: fresh, its user's alone, outside every cache, and gone afterwards.
//!
//! Whoever can write to a cache, or to caches of compilers, would otherwise choose what comes out of a build and is signed. In here
//! come first what is taken from a cache, compared with its checksum on the way, and everything that is made of it.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::unistd::{Uid, mkdtemp};
use sha2::Digest;
use tempfile::NamedTempFile;

use crate::cache::{open_own, pass, pass_on};
use crate::error::At;
use crate::{BundleError, Result, prune, trust};

const PREFIX: &str = "pilothouse-build-";
/// What a killed build left is younger than this only while it is being made and not locked yet.
const YOUNG: Duration = Duration::from_secs(60);

/// Removed on drop.
#[derive(Debug)]
pub(crate) struct Workdir {
    path: PathBuf,
    next: AtomicU64,
    /// Tells others that somebody works here.
    _lock: File,
}

impl Workdir {
    /// `$TMPDIR`; else `/var/tmp`, which is on a disk and large where `/tmp` may be in memory.
    pub(crate) fn default_parent() -> PathBuf {
        let named = std::env::var_os("TMPDIR").filter(|value| !value.is_empty()).map(PathBuf::from);
        named.unwrap_or_else(|| PathBuf::from("/var/tmp"))
    }

    /// A fresh directory in `parent`, which nobody but root and this user may change, or which is sticky.
    pub(crate) fn make(parent: &Path) -> Result<Workdir> {
        let named = std::path::absolute(parent).at("look at", parent)?;
        let parent = &fs::canonicalize(&named).at("look at", &named)?;
        for place in [&named, parent] {
            trust::parents(&place.join(PREFIX)).map_err(BundleError::while_building)?;
        }
        clear(parent);
        let path = mkdtemp(&parent.join(format!("{PREFIX}XXXXXX"))).map_err(io::Error::from).at("create", parent)?;
        let lock = File::open(&path).at("open", &path)?;
        lock.try_lock().map_err(io::Error::from).at("lock", &path)?;
        let made = Workdir { path, next: AtomicU64::new(0), _lock: lock };
        made.check()?;
        Ok(made)
    }

    /// Not every file system keeps owners and modes.
    fn check(&self) -> Result<()> {
        let data = fs::symlink_metadata(&self.path).at("look at", &self.path)?;
        if data.is_dir() && data.uid() == Uid::effective().as_raw() && data.mode() & 0o7777 == 0o700 {
            return Ok(());
        }
        let (owner, mode) = (data.uid(), data.mode() & 0o7777);
        let reason = format!(
            "a new directory there belongs to user {owner} with mode {mode:04o}; name a file system that keeps both by TMPDIR"
        );
        Err(BundleError::UnsafeBuild { path: self.path.clone(), reason })
    }

    /// A directory in it, made if missing.
    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path.join(name);
        fs::create_dir_all(&dir).at("create", &dir)?;
        Ok(dir)
    }

    /// A fresh name for a file.
    pub(crate) fn file(&self) -> PathBuf {
        self.path.join(format!("file-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        // What a child that is still dying adds meanwhile goes with the next build.
        let _ = prune::remove(&self.path);
    }
}

/// Copies a file and says what the copied bytes sum up to: whatever happens to `from` later, these are the ones.
pub(crate) fn copy<D: Digest>(from: &Path, to: &Path) -> Result<(String, u64)> {
    let mut out = File::options().write(true).create_new(true).open(to).at("create", to)?;
    pass::<D>(from, &mut out)
}

/// Copies a file of the cache, at most in the length that it has when it is opened, and says what the copied bytes sum up to.
pub(crate) fn copy_own<D: Digest>(from: &Path, to: &Path) -> Result<String> {
    let file = open_own(from)?;
    let length = file.metadata().at("look at", from)?.len();
    let mut out = File::options().write(true).create_new(true).open(to).at("create", to)?;
    Ok(pass_on::<D>(file.take(length), from, &mut out)?.0)
}

/// Removes what builds of this user left that were killed.
fn clear(parent: &Path) {
    for path in prune::children(parent).unwrap_or_default() {
        let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if named && is_left(&path).unwrap_or(false) {
            let _ = prune::remove(&path);
        }
    }
}

fn is_left(path: &Path) -> io::Result<bool> {
    let data = fs::symlink_metadata(path)?;
    let old = SystemTime::now().duration_since(data.modified()?).is_ok_and(|age| age > YOUNG);
    let ours = data.is_dir() && data.uid() == Uid::effective().as_raw();
    Ok(old && ours && File::open(path)?.try_lock().is_ok())
}

/// Replaces a small file by way of a draft in `drafts`, a directory of the same file system: it is the old one or the new one, on
/// disk when this returns, and nothing is left of a draft that could not be written.
pub(crate) fn replace(path: &Path, text: &[u8], mode: u32, drafts: &Path) -> io::Result<()> {
    let mut draft = NamedTempFile::new_in(drafts)?;
    draft.write_all(text)?;
    // Whatever the umask: other users verify by what is public.
    draft.as_file().set_permissions(Permissions::from_mode(mode))?;
    draft.as_file().sync_all()?;
    draft.persist(path)?;
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_build_has_a_directory_of_its_own_for_as_long_as_it_works() {
        let parent = tempfile::tempdir().unwrap();
        let one = Workdir::make(parent.path()).unwrap();
        let (path, data) = (one.path.clone(), fs::metadata(&one.path).unwrap());
        assert_eq!((data.mode() & 0o7777, data.uid()), (0o700, Uid::effective().as_raw()));
        // As Go leaves modules.
        let closed = one.dir("a/b").unwrap();
        fs::write(closed.join("file"), "x").unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
        // Another build spares it, however old, and removes what was left.
        let left = parent.path().join(format!("{PREFIX}left"));
        let (foreign, yesterday) = (parent.path().join("left"), SystemTime::now() - Duration::from_secs(86400));
        for dir in [&left, &foreign] {
            fs::create_dir(dir).unwrap();
        }
        for dir in [&left, &foreign, &path] {
            File::open(dir).unwrap().set_modified(yesterday).unwrap();
        }
        drop(Workdir::make(parent.path()).unwrap());
        assert!(path.exists() && foreign.exists() && !left.exists());
        drop(one);
        assert!(!path.exists());
    }

    #[test]
    fn a_place_that_others_may_change_is_refused_with_the_path_and_what_to_do() {
        let temp = tempfile::tempdir().unwrap();
        let parent = temp.path().join("open/parent");
        fs::create_dir_all(&parent).unwrap();
        for path in [temp.path().join("open"), parent.clone()] {
            fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
            let error = Workdir::make(&parent).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{} is no safe place to build programs", path.display())), "{error}");
            assert!(error.contains("run `chmod go-w` on it") && error.contains("TMPDIR"), "{error}");
            // As /tmp is: others may add to it, and not rename what is ours.
            fs::set_permissions(&path, Permissions::from_mode(0o1777)).unwrap();
        }
        Workdir::make(&parent).unwrap();
        if Uid::effective().is_root() {
            std::os::unix::fs::chown(&parent, Some(65534), None).unwrap();
            assert!(matches!(Workdir::make(&parent), Err(BundleError::UnsafeBuild { path, .. }) if path == parent));
        }
    }
}
