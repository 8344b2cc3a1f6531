//! Who may write to a cache. What lies there is executed, mostly by root: a directory that another user can write to,
//! or rename, would let that user choose what root runs.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use nix::unistd::Uid;

use crate::error::At;
use crate::{BundleError, Result};

const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o022;

/// Makes a directory and its missing parents, writable by its owner alone whatever the umask.
pub(crate) fn create(dir: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.map_err(|source| BundleError::NoCache { path: dir.to_owned(), source })
}

/// Refuses a cache whose directory, parts or parents somebody else than its user and root may change. An absent cache
/// is nobody's. Costs a dozen `stat` calls.
pub(crate) fn check(dir: &Path) -> Result<()> {
    own(dir, false)?;
    for part in ["sha256", "bundles", "done", "downloads", "tmp", "work"] {
        own(&dir.join(part), false)?;
    }
    parents(dir)
}

/// Refuses a file or directory that somebody else than its user and root may change, or whose parents they may.
pub(crate) fn check_alone(path: &Path) -> Result<()> {
    own(path, false)?;
    parents(path)
}

/// Refuses a path whose parents somebody else may change; others may add to one that is sticky.
pub(crate) fn parents(dir: &Path) -> Result<()> {
    let real = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    for parent in dir.ancestors().skip(1).chain(real.ancestors().skip(1)) {
        own(parent, true)?;
    }
    Ok(())
}

/// `parent`: a sticky directory will do, nobody but the owner of an entry can rename it there.
fn own(path: &Path, parent: bool) -> Result<()> {
    let link = match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            return Ok(());
        }
        other => other.at("look at", path)?,
    };
    let data = fs::metadata(path).at("look at", path)?;
    let me = Uid::effective().as_raw();
    let foreign = [link.uid(), data.uid()].into_iter().find(|uid| *uid != 0 && *uid != me);
    let open = data.mode() & OTHERS_WRITE != 0 && !(parent && data.mode() & STICKY != 0);
    let reason = match foreign {
        Some(uid) => format!("it belongs to user {uid}; `chown` it to the user who runs this"),
        None if open => format!("others may write to it (mode {:04o}); run `chmod go-w` on it", data.mode() & 0o7777),
        None => return Ok(()),
    };
    Err(BundleError::Untrusted { path: path.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn a_place_for_no_cache_is_told_with_the_way_to_name_another() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = create(&file.join("cache")).unwrap_err();
        assert!(matches!(&refused, BundleError::NoCache { path, .. } if *path == file.join("cache")));
        assert!(refused.to_string().ends_with("name another by --cache or PILOTHOUSE_CACHE"), "{refused}");
    }

    #[test]
    fn a_cache_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("parent/cache");
        check(&cache).unwrap();
        create(&cache.join("sha256")).unwrap();
        check(&cache).unwrap();
        for path in [cache.join("sha256"), cache.clone(), dir.path().join("parent")] {
            fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
            let error = check(&cache).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{} is not safe", path.display())), "{error}");
            fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        }
        // As in /tmp: others may add to it, but not rename what is ours.
        fs::set_permissions(dir.path().join("parent"), Permissions::from_mode(0o1777)).unwrap();
        check(&cache).unwrap();
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        if !Uid::effective().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        create(&cache.join("bundles")).unwrap();
        chown(cache.join("bundles"), Some(65534), None).unwrap();
        assert!(matches!(check(&cache), Err(BundleError::Untrusted { .. })));
        chown(cache.join("bundles"), Some(0), None).unwrap();
        let link = dir.path().join("link");
        symlink(&cache, &link).unwrap();
        check(&link).unwrap();
        std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
        assert!(matches!(check(&link), Err(BundleError::Untrusted { .. })));
    }
}
