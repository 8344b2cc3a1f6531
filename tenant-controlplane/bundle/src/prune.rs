//! Frees what nobody refers to: earlier bundles, blobs of none, markers without a blob, downloads and temporary work.
//!
//! Kept are the current bundle of each version, bundles some process has open (each [`Bundle`](crate::Bundle) holds a
//! shared lock beside its manifest, and the kernel lets go of it when the process dies), and whatever is younger than
//! asked. A blob that is being executed is kept in any case. The node image is not looked at.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::unistd::Uid;

use crate::build::blocking;
use crate::bundle::{FILE, read};
use crate::cache::{Cache, Stored};
use crate::error::At;
use crate::hold::{HOLD, open_hold};
use crate::{Progress, Report, Result, trust};

/// What to remove, and whether at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneOptions {
    /// What was made, or made current, within this time stays; 7 days unless said.
    pub keep: Duration,
    /// Only tell.
    pub dry_run: bool,
}

impl Default for PruneOptions {
    fn default() -> Self {
        PruneOptions { keep: Duration::from_secs(7 * 24 * 3600), dry_run: false }
    }
}

/// What was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Each thing with its path in the cache and its size, bundles first.
    pub removed: Vec<PrunedItem>,
    /// Bundles that are not current and stay, with the reason: `in use` or `young`.
    pub kept: Vec<(String, &'static str)>,
}

/// One thing [`prune`] removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunedItem {
    /// Path within the cache: `bundles/1.36.3-0d2e6811952e`, `sha256/<hex>`, `done/<hex>`, `downloads/<name>` …
    pub name: String,
    /// Bytes; a directory counts all files in it.
    pub size: u64,
}

impl Pruned {
    /// Bytes of all that was removed.
    pub fn size(&self) -> u64 {
        self.removed.iter().map(|item| item.size).sum()
    }
}

/// Removes from a cache what nobody refers to. Waits for a build under way there.
///
/// # Errors
/// A manifest cannot be read (then nothing is removed: what it refers to is unknown), or a file cannot be removed.
pub async fn prune(cache: &Path, opts: &PruneOptions, report: Report<'_>) -> Result<Pruned> {
    let cache = Cache::new(cache);
    trust::check(cache.dir())?;
    if !cache.dir().is_dir() {
        return Ok(Pruned::default());
    }
    let lock = cache.lock(report).await?;
    let opts = opts.clone();
    let pruned = blocking(move || {
        // Moved in here, so that it is held to the end even if nobody waits for it any more.
        let _lock = lock;
        Sweep { cache, opts, pruned: Pruned::default() }.run()
    })
    .await?;
    for item in &pruned.removed {
        report(Progress::Note(format!("{}: {}", item.name, crate::progress::bytes(item.size))));
    }
    Ok(pruned)
}

struct Sweep {
    cache: Cache,
    opts: PruneOptions,
    pruned: Pruned,
}

impl Sweep {
    fn run(mut self) -> Result<Pruned> {
        let (gone, _locks, blobs) = self.bundles()?;
        for dir in gone {
            self.remove(&dir)?;
        }
        let executed = executed();
        for path in children(&self.cache.blobs())? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let data = fs::symlink_metadata(&path).at("look at", &path)?;
            let serves = blobs.contains(&name) || executed.contains(&(data.dev(), data.ino()));
            if !serves && !self.is_young(&path)? {
                self.remove(&path)?;
            }
        }
        for path in children(&self.cache.markers())? {
            if !self.serves(&path) {
                self.remove(&path)?;
            }
        }
        for path in [children(&self.cache.downloads())?, children(&self.cache.work())?].concat() {
            if !self.is_young(&path)? {
                self.remove(&path)?;
            }
        }
        Ok(self.pruned)
    }

    /// The bundles to remove, locked against being opened meanwhile, and the blobs of all others.
    fn bundles(&mut self) -> Result<(Vec<PathBuf>, Vec<File>, BTreeSet<String>)> {
        let (mut gone, mut locks, mut blobs) = (Vec::new(), Vec::new(), BTreeSet::new());
        for dir in children(&self.cache.bundles())?.into_iter().filter(|dir| !dir.is_symlink()) {
            let path = dir.join(FILE);
            if !path.exists() {
                // Begun and never finished.
                gone.push(dir);
                continue;
            }
            let file = open_hold(&dir).at("open", &dir.join(HOLD))?;
            let manifest = read(&path)?;
            let id = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let current = fs::read_link(self.cache.bundles().join(&manifest.kubernetes));
            let stays = if current.is_ok_and(|target| target == Path::new(&id)) {
                Some("current")
            } else if in_use(&file).at("lock", &dir.join(HOLD))? {
                Some("in use")
            } else {
                self.is_young(&path)?.then_some("young")
            };
            match stays {
                None => {
                    gone.push(dir);
                    locks.push(file);
                    continue;
                }
                Some("current") => {}
                Some(reason) => self.pruned.kept.push((id, reason)),
            }
            blobs.extend(manifest.artefacts.into_iter().map(|artefact| artefact.sha256));
        }
        Ok((gone, locks, blobs))
    }

    fn is_young(&self, path: &Path) -> Result<bool> {
        let made = fs::symlink_metadata(path).and_then(|data| data.modified()).at("look at", path)?;
        // A time in the future counts as young.
        Ok(SystemTime::now().duration_since(made).unwrap_or_default() < self.opts.keep)
    }

    /// Whether a done marker still leads to a blob that stays.
    fn serves(&self, marker: &Path) -> bool {
        let stored = fs::read(marker).ok().and_then(|text| serde_json::from_slice::<Stored>(&text).ok());
        stored.is_some_and(|stored| {
            let removed = self.pruned.removed.iter().any(|item| item.name == format!("sha256/{}", stored.sha256));
            !removed && self.cache.blob(&stored.sha256).exists()
        })
    }

    fn remove(&mut self, path: &Path) -> Result<()> {
        let name = path.strip_prefix(self.cache.dir()).unwrap_or(path).display().to_string();
        let size = size(path)?;
        if !self.opts.dry_run {
            remove(path)?;
        }
        self.pruned.removed.push(PrunedItem { name, size });
        Ok(())
    }
}

/// Whether a process has the bundle open. If none has, none can until the file is dropped.
fn in_use(hold: &File) -> io::Result<bool> {
    match hold.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Device and inode of every process's program, as far as this user may see. Not its path: inside a container's mounts
/// a blob has another one.
fn executed() -> BTreeSet<(u64, u64)> {
    let Ok(processes) = fs::read_dir("/proc") else { return BTreeSet::new() };
    let programs = processes.flatten().filter_map(|process| fs::metadata(process.path().join("exe")).ok());
    programs.map(|data| (data.dev(), data.ino())).collect()
}

/// Entries of a directory, sorted; none if it is absent.
pub(crate) fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at("read", dir)?,
    };
    let mut all =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>().at("read", dir)?;
    all.sort();
    Ok(all)
}

fn size(path: &Path) -> Result<u64> {
    let data = fs::symlink_metadata(path).at("look at", path)?;
    if !data.is_dir() {
        return Ok(data.size());
    }
    children(path)?.iter().map(|child| size(child)).sum()
}

/// Removes a file or a tree, without following links. Go makes the directories of its module cache read-only.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let data = fs::symlink_metadata(path).at("look at", path)?;
    if !data.is_dir() {
        return fs::remove_file(path).at("remove", path);
    }
    // Modes do not stop root, and the library's way is safe where somebody swaps a directory for a link meanwhile.
    if Uid::effective().is_root() {
        return fs::remove_dir_all(path).at("remove", path);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).at("change the mode of", path)?;
    for child in children(path)? {
        remove(&child)?;
    }
    fs::remove_dir(path).at("remove", path)
}
