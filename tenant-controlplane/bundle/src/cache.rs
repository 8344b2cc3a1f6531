//! The content-addressed store and its neighbours: done markers, the build lock, scratch space.
//!
//! Every file appears under its final name by a rename after its bytes are on disk, so a crash leaves scratch files
//! (removed by the next build) but never half an artefact.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::At;
use crate::keys::Keys;
use crate::signature::{RESULT, Signature, SigningKey, result_text};
use crate::{Progress, Report, Result, trust, workdir};

/// Mode of a stored program: read-only and executable by all.
pub(crate) const PROGRAM: u32 = 0o555;
/// Mode of a stored image or anything else that is not run.
pub(crate) const DATA: u32 = 0o444;

const SYSTEM: &str = "/var/cache/pilothouse";

/// A cache directory, and the keys that count in it. Cheap to clone; holds no lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    dir: PathBuf,
    keys: Keys,
}

/// What is known of stored bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) sha256: String,
    pub(crate) size: u64,
}

/// What a build led to, as it lies in the cache: without a signature of the own key it does not count.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    #[serde(flatten)]
    stored: Stored,
    #[serde(default)]
    signatures: Vec<Signature>,
}

/// Held while a cache is written to; released on drop, and by the kernel when the process dies.
pub(crate) struct CacheLock(#[allow(dead_code, reason = "held for its drop")] File);

impl Cache {
    /// The cache in `dir`, which need not exist yet, with this user's keys.
    pub fn new(dir: impl Into<PathBuf>) -> Cache {
        Cache::with_keys(dir, Keys::new(Keys::default_dir()))
    }

    /// The cache in `dir` with other keys.
    pub fn with_keys(dir: impl Into<PathBuf>, keys: Keys) -> Cache {
        let dir = dir.into();
        // Child processes run in other directories and get paths from here.
        Cache { dir: std::path::absolute(&dir).unwrap_or(dir), keys }
    }

    /// The keys that count in it.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// `$PILOTHOUSE_CACHE`; else `/var/cache/pilothouse` for root; else `pilothouse` in the user's cache directory.
    pub fn default_dir() -> PathBuf {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(dir) = variable("PILOTHOUSE_CACHE") {
            return dir;
        }
        if nix::unistd::Uid::effective().is_root() {
            return PathBuf::from(SYSTEM);
        }
        let user = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        user.map_or_else(|| PathBuf::from(SYSTEM), |dir| dir.join("pilothouse"))
    }

    /// Where a bundle is looked for when no cache is named: the default, then the machine's.
    pub(crate) fn candidates() -> Vec<Cache> {
        let mut all = vec![Cache::default(), Cache::new(SYSTEM)];
        all.dedup();
        all
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the bytes with this SHA-256 (lower-case hex) are or would be.
    pub fn blob(&self, sha256: &str) -> PathBuf {
        self.dir.join("sha256").join(sha256)
    }

    /// The directory of all blobs, to hand to machines read-only.
    pub fn blobs(&self) -> PathBuf {
        self.dir.join("sha256")
    }

    /// The directory of all manifests, `<version>-<hash>/bundle.json`.
    pub fn bundles(&self) -> PathBuf {
        self.dir.join("bundles")
    }

    /// Go modules as they were downloaded; each is compared with its pin when it is used.
    pub(crate) fn modules(&self) -> PathBuf {
        self.work().join("modules")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    pub(crate) fn downloads(&self) -> PathBuf {
        self.dir.join("downloads")
    }

    /// A fresh name for a scratch file on the store's own disk.
    pub(crate) fn scratch(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.dir.join("tmp").join(format!("{}-{number}", std::process::id()))
    }

    /// Makes the directories and waits for the lock; others' builds in the same cache then wait for us.
    pub(crate) async fn lock(&self, report: Report<'_>) -> Result<CacheLock> {
        trust::check(&self.dir)?;
        for dir in ["", "sha256", "bundles", "done", "downloads", "work"] {
            trust::create(&self.dir.join(dir))?;
        }
        let path = self.dir.join("lock");
        // Whoever may open it may lock it, and everybody else would wait.
        let file = File::options().create(true).append(true).mode(0o600).open(&path).at("open", &path)?;
        file.set_permissions(Permissions::from_mode(0o600)).at("protect", &path)?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error).at("lock", &path),
                Err(TryLockError::WouldBlock) if !told => {
                    report(Progress::Note(format!("waiting for another build in {}", self.dir.display())));
                    told = true;
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        }
        self.clear_scratch()?;
        Ok(CacheLock(file))
    }

    fn clear_scratch(&self) -> Result<()> {
        let path = self.dir.join("tmp");
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &path),
            _ => trust::create(&path),
        }
    }

    /// Moves a finished file of this cache's own disk into the store.
    pub(crate) fn adopt(&self, from: &Path, mode: u32) -> Result<Stored> {
        let stored = digest(from)?;
        self.place(from, &stored, mode)?;
        Ok(stored)
    }

    fn place(&self, from: &Path, stored: &Stored, mode: u32) -> Result<()> {
        let file = open_own(from)?;
        file.set_permissions(Permissions::from_mode(mode)).at("change the mode of", from)?;
        file.sync_all().at("sync", from)?;
        let to = self.blob(&stored.sha256);
        fs::rename(from, &to).at("rename", from)?;
        sync_folder(&to)
    }

    /// Copies a foreign file into the store. What is known of it is what was read there, whatever becomes of the copy.
    pub(crate) fn copy_in(&self, from: &Path, mode: u32) -> Result<Stored> {
        let scratch = self.scratch();
        let (sha256, size) = workdir::copy::<Sha256>(from, &scratch)?;
        let stored = Stored { sha256, size };
        self.place(&scratch, &stored, mode)?;
        Ok(stored)
    }

    /// What an earlier build stored under this input key, if this installation signed that and its bytes are still what they were.
    pub(crate) fn done(&self, key: &str) -> Option<Stored> {
        let stored = self.claimed(key)?;
        let path = self.blob(&stored.sha256);
        (digest(&path).ok()? == stored).then_some(stored)
    }

    /// The same without a look at the bytes.
    pub(crate) fn claimed(&self, key: &str) -> Option<Stored> {
        let Marker { stored, signatures } = serde_json::from_slice(&fs::read(self.marker(key)).ok()?).ok()?;
        let text = result_text(key, &stored.sha256, stored.size);
        self.keys.vouches(RESULT, text.as_bytes(), &signatures).then_some(stored)
    }

    /// Remembers what the input key led to.
    pub(crate) fn mark_done(&self, key: &str, stored: &Stored) -> Result<()> {
        self.mark_done_by(key, stored, &[&self.keys.signer()?])
    }

    /// The same, signed by these.
    pub(crate) fn mark_done_by(&self, key: &str, stored: &Stored, signers: &[&SigningKey]) -> Result<()> {
        let text = result_text(key, &stored.sha256, stored.size);
        let signatures = signers.iter().map(|signer| signer.sign(RESULT, text.as_bytes())).collect();
        let text = serde_json::to_string(&Marker { stored: stored.clone(), signatures }).unwrap_or_default();
        self.replace(&self.marker(key), text.as_bytes())
    }

    fn marker(&self, key: &str) -> PathBuf {
        self.markers().join(key)
    }

    pub(crate) fn markers(&self) -> PathBuf {
        self.dir.join("done")
    }

    /// Writes a small file so that readers see the old or the new text, never a part.
    pub(crate) fn replace(&self, path: &Path, text: &[u8]) -> Result<()> {
        workdir::replace(path, text, 0o644, &self.dir.join("tmp")).at("write", path)
    }
}

impl Default for Cache {
    /// In the default directory, with this user's keys.
    fn default() -> Cache {
        Cache::new(Cache::default_dir())
    }
}

/// Puts a rename on disk, so that what is recorded later never survives a crash that it does not.
fn sync_folder(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    File::open(dir).and_then(|dir| dir.sync_all()).at("sync", dir)
}

/// SHA-256 and size of a file.
pub(crate) fn digest(path: &Path) -> Result<Stored> {
    let (sha256, size) = pass::<Sha256>(path, &mut io::sink())?;
    Ok(Stored { sha256, size })
}

/// Opens a file that lies in the cache: whoever may write there may have put a link or a pipe in its place.
pub(crate) fn open_own(path: &Path) -> Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path).at("open", path)?;
    if file.metadata().at("look at", path)?.is_file() {
        return Ok(file);
    }
    Err(io::Error::from(io::ErrorKind::InvalidInput)).at("read, which is no file,", path)
}

/// Checksum, in lower-case hex, and size of what is passed on of a file.
pub(crate) fn pass<D: Digest>(path: &Path, to: &mut impl Write) -> Result<(String, u64)> {
    pass_on::<D>(File::open(path).at("open", path)?, path, to)
}

/// The same of a file that was opened already; `path` names it in errors.
pub(crate) fn pass_on<D: Digest>(mut file: impl Read, path: &Path, to: &mut impl Write) -> Result<(String, u64)> {
    let (mut hasher, mut size, mut buffer) = (D::new(), 0u64, vec![0u8; 1 << 18]);
    loop {
        match file.read(&mut buffer).at("read", path)? {
            0 => return Ok((hex(hasher), size)),
            count => {
                hasher.update(&buffer[..count]);
                to.write_all(&buffer[..count]).at("copy", path)?;
                size += count as u64;
            }
        }
    }
}

/// Lower-case hex of a finished hash.
pub(crate) fn hex(hasher: impl Digest) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 over parts that cannot run into one another: each is preceded by its length.
pub(crate) fn key(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hex(hasher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_the_place_of_a_file_of_the_cache_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::with_keys(dir.path().join("cache"), Keys::new(dir.path().join("signing")));
        let (secret, planted) = (dir.path().join("secret"), dir.path().join("planted"));
        fs::write(&secret, b"abc").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&secret, &planted).unwrap();
        let stored = digest(&secret).unwrap();
        assert!(cache.place(&planted, &stored, DATA).is_err());
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600, "it is nobody else's still");
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_own(&pipe).is_err(), "and a pipe is not waited for");
        assert!(open_own(&secret).is_ok());
    }

    #[tokio::test]
    async fn stored_bytes_are_found_again_until_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::with_keys(dir.path(), Keys::new(dir.path().join("signing")));
        let _lock = cache.lock(&|_| {}).await.unwrap();
        let from = dir.path().join("from");
        fs::write(&from, b"abc").unwrap();
        let stored = cache.copy_in(&from, PROGRAM).unwrap();
        assert_eq!(stored.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(fs::metadata(cache.blob(&stored.sha256)).unwrap().permissions().mode() & 0o777, PROGRAM);
        cache.mark_done("k", &stored).unwrap();
        assert_eq!(cache.done("k"), Some(stored.clone()));
        fs::remove_file(cache.blob(&stored.sha256)).unwrap();
        fs::write(cache.blob(&stored.sha256), b"abd").unwrap();
        assert_eq!(cache.done("k"), None);
    }

    #[tokio::test]
    async fn a_result_that_this_installation_did_not_sign_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let keys = |name: &str| Keys::new(dir.path().join(name));
        let (cache, other) = (Cache::with_keys(dir.path(), keys("a")), Cache::with_keys(dir.path(), keys("b")));
        let _lock = cache.lock(&|_| {}).await.unwrap();
        fs::write(dir.path().join("from"), b"abc").unwrap();
        let stored = cache.copy_in(&dir.path().join("from"), PROGRAM).unwrap();
        cache.mark_done("k", &stored).unwrap();
        let marker = fs::read_to_string(cache.marker("k")).unwrap();
        let written = |text: &str, key: &str| {
            fs::write(cache.marker(key), text).unwrap();
            cache.done(key)
        };
        assert_eq!(written(&marker, "k"), Some(stored.clone()));
        assert_eq!(written(&marker, "another"), None, "of another input");
        assert_eq!(written(&serde_json::to_string(&stored).unwrap(), "k"), None, "without a signature");
        assert_eq!(written(&marker.replace("\"size\":3", "\"size\":4"), "k"), None);
        other.mark_done("k", &stored).unwrap();
        assert_eq!(cache.done("k"), None, "by somebody else");
    }

    #[tokio::test]
    async fn a_second_build_waits_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::with_keys(dir.path(), Keys::new(dir.path().join("signing")));
        let first = cache.lock(&|_| {}).await.unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        let report = move |progress: Progress| told.send(progress.to_string()).unwrap();
        let second = tokio::spawn({
            let cache = cache.clone();
            async move { cache.lock(&report).await.map(drop) }
        });
        let line = tokio::task::spawn_blocking(move || heard.recv().unwrap()).await.unwrap();
        assert!(line.starts_with("waiting for another build"), "{line}");
        drop(first);
        second.await.unwrap().unwrap();
    }

    #[test]
    fn keys_do_not_run_together() {
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
    }
}
