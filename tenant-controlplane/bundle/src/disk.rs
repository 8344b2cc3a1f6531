//! How much disk is free, asked before anything large is begun.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::At;
use crate::{BundleError, Progress, Report, Result};

/// Answers how many bytes an unprivileged writer may still write on the disk that holds a path. Tests put in their own.
pub type FreeSpace = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

/// The real answer, by `statvfs`.
pub fn free_space() -> FreeSpace {
    Arc::new(|path| {
        let stat = nix::sys::statvfs::statvfs(path)?;
        Ok(stat.blocks_available() * stat.fragment_size())
    })
}

/// Checks that each disk has room for the sum of what is wanted on it; wants are (path, bytes), paths may not exist yet.
pub(crate) fn check(wants: &[(PathBuf, u64)], probe: &FreeSpace, report: Report<'_>) -> Result<()> {
    let mut disks: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
    for (path, need) in wants.iter().filter(|(_, need)| *need > 0) {
        let existing = nearest(path);
        let device = std::fs::metadata(existing).at("look at", existing)?.dev();
        disks.entry(device).or_insert_with(|| (existing.to_owned(), 0)).1 += need;
    }
    for (path, need) in disks.into_values() {
        let free = probe(&path).at("measure free space at", &path)?;
        if free < need {
            return Err(BundleError::Space { path, need, free });
        }
        report(Progress::Space { path, need, free });
    }
    Ok(())
}

/// The nearest ancestor that exists; at worst the root.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wants_on_one_disk_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let wants = vec![(dir.path().join("a/b"), 600), (dir.path().join("c"), 500)];
        let probe: FreeSpace = Arc::new(|_| Ok(1000));
        let error = check(&wants, &probe, &|_| {}).unwrap_err().to_string();
        assert!(error.starts_with("disk too small at") && error.contains("1.1 kB needed, 1.0 kB free"), "{error}");
        let probe: FreeSpace = Arc::new(|_| Ok(1100));
        check(&wants, &probe, &|_| {}).unwrap();
    }

    #[test]
    fn the_real_probe_answers() {
        assert!(free_space()(Path::new("/")).unwrap() > 0);
    }
}
