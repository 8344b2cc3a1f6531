//! What was built before there were signatures, and the change to another key.
//!
//! A cache in which nothing was ever signed is signed once as it lies there, after every byte was compared with its checksum. This
//! believes whoever wrote to the cache before; `docs/security.md` says so. After that, what has no signature there does not count.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::build::blocking;
use crate::bundle::{self, FILE, SIGNATURE};
use crate::cache::{Cache, Stored, digest};
use crate::keys::{Keys, judge};
use crate::manifest::{Artefact, Manifest};
use crate::prune::children;
use crate::signature::{Envelope, PublicKey, SigningKey};
use crate::{Progress, Report, Result};

/// Signs what was built in this cache before there were signatures, if that never happened. Waits for a build under way.
///
/// # Errors
/// The cache or the keys cannot be used.
pub async fn adopt(cache: &Cache, report: Report<'_>) -> Result<()> {
    if !cache.keys().is_new(cache.dir())? {
        return Ok(());
    }
    let _lock = cache.lock(report).await?;
    adopt_locked(cache, report).await
}

/// The same, by who holds the cache's lock.
pub(crate) async fn adopt_locked(cache: &Cache, report: Report<'_>) -> Result<()> {
    if !cache.keys().is_new(cache.dir())? {
        return Ok(());
    }
    let work = cache.clone();
    let note =
        blocking(move || Adoption { signer: work.keys().signer()?, cache: work, seen: HashMap::new() }.run()).await?;
    note.into_iter().for_each(|text| report(Progress::Note(text)));
    Ok(())
}

struct Adoption {
    cache: Cache,
    signer: SigningKey,
    /// Files read already.
    seen: HashMap<String, Option<Stored>>,
}

impl Adoption {
    fn run(mut self) -> Result<Vec<String>> {
        let dirs = bundles(&self.cache)?;
        let mut notes = Vec::new();
        // One signature of another key is enough to know that this cache comes from where signing was known.
        if !dirs.iter().any(|dir| self.is_of_another(dir)) {
            self.results()?;
            let mut signed = 0;
            for dir in &dirs {
                match self.bundle(dir)? {
                    None => signed += 1,
                    Some(reason) => notes.push(format!("{} is not signed: {reason}", dir.display())),
                }
            }
            if signed > 0 {
                notes.push(format!(
                    "{signed} bundles in {} were made before bundles were signed: taken as they lie there, and signed with {}",
                    self.cache.dir().display(),
                    self.signer.public()
                ));
            }
        }
        self.cache.keys().note_cache(self.cache.dir())?;
        Ok(notes)
    }

    fn is_of_another(&self, dir: &Path) -> bool {
        let read = |name| fs::read_to_string(dir.join(name)).unwrap_or_default();
        dir.join(SIGNATURE).exists() && judge(&read(FILE), &read(SIGNATURE), &[self.signer.public()]).is_err()
    }

    /// Signs one bundle; says why not.
    fn bundle(&mut self, dir: &Path) -> Result<Option<String>> {
        let path = dir.join(FILE);
        let Ok(text) = fs::read_to_string(&path) else { return Ok(Some("it was never finished".to_owned())) };
        let manifest = match Manifest::parse(&text) {
            Ok(manifest) => manifest,
            Err(reason) => return Ok(Some(reason)),
        };
        let changed = manifest.artefacts.iter().find(|part| !self.is_whole(part));
        if let Some(part) = changed {
            return Ok(Some(format!("{} is not what its checksum says", part.name)));
        }
        bundle::sign(&self.cache, dir, &text, &self.signer)?;
        Ok(None)
    }

    fn is_whole(&mut self, part: &Artefact) -> bool {
        let found = self.read(&part.sha256);
        found.is_some_and(|found| found.sha256 == part.sha256 && found.size == part.size)
    }

    fn read(&mut self, sha256: &str) -> Option<Stored> {
        let path = self.cache.blob(sha256);
        self.seen.entry(sha256.to_owned()).or_insert_with(|| digest(&path).ok()).clone()
    }

    /// Signs what single builds led to.
    fn results(&mut self) -> Result<()> {
        for path in children(&self.cache.markers())? {
            let Some(key) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
            let stored = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Stored>(&text).ok());
            let Some(stored) = stored else { continue };
            if self.read(&stored.sha256).as_ref() == Some(&stored) {
                self.cache.mark_done(&key, &stored)?;
            }
        }
        Ok(())
    }
}

/// Gives the installation a new key, made or given by file: everything signed with the old one is signed with both, then the old one
/// signs that the new one follows, which nodes are told. Cut off anywhere it is begun again.
///
/// # Errors
/// A key cannot be used, or a cache cannot be written; then the old key stays.
pub async fn rotate(keys: &Keys, report: Report<'_>) -> Result<PublicKey> {
    let old = keys.present()?;
    let (new, file) = keys.successor()?;
    if new.public() == old.public() {
        let reason = "this installation signs with it already".to_owned();
        return Err(crate::BundleError::Key { path: file, reason });
    }
    for dir in keys.caches()?.into_iter().filter(|dir| dir.is_dir()) {
        let cache = Cache::with_keys(dir, keys.clone());
        let _lock = cache.lock(report).await?;
        let count = sign_again(&cache, &old, &new)?;
        report(Progress::Note(format!("{}: {count} bundles signed with {}", cache.dir().display(), new.public())));
    }
    keys.succeed(&old, (new.public(), file))?;
    Ok(new.public())
}

fn sign_again(cache: &Cache, old: &SigningKey, new: &SigningKey) -> Result<usize> {
    let mut count = 0;
    for dir in bundles(cache)? {
        let read = |name| fs::read_to_string(dir.join(name));
        let (Ok(text), Ok(envelope)) = (read(FILE), read(SIGNATURE)) else { continue };
        let Ok(signature) = judge(&text, &envelope, &[old.public()]) else { continue };
        let both = vec![signature, new.sign(crate::signature::BUNDLE, text.as_bytes())];
        cache.replace(&dir.join(SIGNATURE), Envelope::of_bundle(both).to_json().as_bytes())?;
        count += 1;
    }
    for path in children(&cache.markers())? {
        let Some(key) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
        if let Some(stored) = cache.claimed(&key) {
            cache.mark_done_by(&key, &stored, &[old, new])?;
        }
    }
    Ok(count)
}

/// The directory of every bundle.
fn bundles(cache: &Cache) -> Result<Vec<PathBuf>> {
    let all = children(&cache.bundles())?;
    Ok(all.into_iter().filter(|path| path.is_dir() && !path.is_symlink()).collect())
}
