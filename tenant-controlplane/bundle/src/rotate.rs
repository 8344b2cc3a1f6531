//! The change to another key, without building or joining anything again.

use std::fs;
use std::path::PathBuf;

use crate::bundle::{FILE, SIGNATURE};
use crate::cache::Cache;
use crate::keys::{Keys, judge};
use crate::prune::children;
use crate::signature::{Envelope, PublicKey, SigningKey};
use crate::{Progress, Report, Result};

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
    keys.succeed(&old, new.public(), file)?;
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
