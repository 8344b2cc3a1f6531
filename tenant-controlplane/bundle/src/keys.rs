//! The keys of an installation: its own, by which it signs what it builds, and those it trusts besides.
//!
//! They lie outside every cache, so that whoever can write to a cache cannot sign:
//!
//! ```text
//! /etc/pilothouse/signing/keys.json   public: the own key and where its private half is, trusted keys, successions, caches
//! /etc/pilothouse/signing/<hex>.key   PKCS#8, PEM, 0600
//! ```
//!
//! For another user than root: `~/.config/pilothouse/signing`; then root's keys are trusted besides.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::cache::key;
use crate::error::{At, SignatureFault};
use crate::signature::{BUNDLE, Envelope, PublicKey, Signature, SigningKey, Succession};
use crate::{BundleError, Result, trust, workdir};

const SYSTEM: &str = "/etc/pilothouse/signing";
const STATE: &str = "keys.json";

/// Where an installation's keys are, and the key file it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    dir: PathBuf,
    given: Option<PathBuf>,
}

/// What `keys.json` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    own: Option<Own>,
    trusted: Vec<PublicKey>,
    /// How the own key came to its place, the oldest first.
    successions: Vec<Succession>,
    /// Caches that were signed in, which a new key must sign in too.
    caches: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Own {
    key: PublicKey,
    file: PathBuf,
}

impl Keys {
    /// Keys in this directory, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Keys {
        let dir = dir.into();
        Keys { dir: std::path::absolute(&dir).unwrap_or(dir), given: None }
    }

    /// `$PILOTHOUSE_SIGNING_DIR`; else `/etc/pilothouse/signing` for root; else below the user's own configuration.
    pub fn default_dir() -> PathBuf {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(dir) = variable("PILOTHOUSE_SIGNING_DIR") {
            return dir;
        }
        if Uid::effective().is_root() {
            return PathBuf::from(SYSTEM);
        }
        let user = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
        user.map_or_else(|| PathBuf::from(SYSTEM), |dir| dir.join("pilothouse/signing"))
    }

    /// The same, with a private key that the operator keeps in a file of his own.
    #[must_use]
    pub fn with_file(mut self, file: Option<PathBuf>) -> Keys {
        self.given = file.map(|file| std::path::absolute(&file).unwrap_or(file));
        self
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The installation's own public key, made at the first call.
    ///
    /// # Errors
    /// [`BundleError::Key`] and [`BundleError::Io`]: it cannot be made or read, or is not the one it was.
    pub fn own(&self) -> Result<PublicKey> {
        Ok(self.signer()?.public())
    }

    /// Keys that are trusted besides the own one; for another user than root also root's.
    ///
    /// # Errors
    /// The list cannot be read, or others may write to it.
    pub fn trusted(&self) -> Result<Vec<PublicKey>> {
        let mut all = self.state()?.trusted;
        let system = self.roots();
        all.extend(system.own.map(|own| own.key).into_iter().chain(system.trusted));
        Ok(all)
    }

    /// What root's list says, for another user.
    fn roots(&self) -> State {
        let is_theirs = !Uid::effective().is_root() && self.dir != Path::new(SYSTEM);
        if is_theirs { Keys::new(SYSTEM).state().unwrap_or_default() } else { State::default() }
    }

    /// The own public key, if there is one.
    pub(crate) fn known_own(&self) -> Result<Option<PublicKey>> {
        Ok(self.state()?.own.map(|own| own.key))
    }

    /// Trusts what this key signed.
    ///
    /// # Errors
    /// The list cannot be written.
    pub fn trust(&self, key: PublicKey) -> Result<()> {
        self.change(|state| {
            state.trusted.retain(|known| *known != key);
            state.trusted.push(key);
        })
    }

    /// No longer trusts what this key signed. False: it was not trusted.
    ///
    /// # Errors
    /// The list cannot be written.
    pub fn distrust(&self, key: PublicKey) -> Result<bool> {
        let mut found = false;
        self.change(|state| {
            found = state.trusted.contains(&key);
            state.trusted.retain(|known| *known != key);
        })?;
        Ok(found)
    }

    /// How this key, the own one or root's, came to its place, the oldest first.
    pub(crate) fn successions(&self, key: PublicKey) -> Result<Vec<Succession>> {
        let (own, system) = (self.state()?, self.roots());
        let of = [own, system].into_iter().find(|state| state.own.as_ref().is_some_and(|own| own.key == key));
        Ok(of.map(|state| state.successions).unwrap_or_default())
    }

    /// The own private key. Made at the first call, or taken from the file that was given.
    pub(crate) fn signer(&self) -> Result<SigningKey> {
        if let (Some(own), None) = (self.state()?.own, &self.given) {
            return Keys::load(&own);
        }
        let _lock = self.lock()?;
        let mut state = self.state()?;
        let (signer, file) = match (&state.own, &self.given) {
            (Some(own), None) => return Keys::load(own),
            (None, None) => self.generate()?,
            (known, Some(file)) => {
                let signer = read_key(file)?;
                if let Some(own) = known
                    && own.key != signer.public()
                {
                    let reason = format!(
                        "this installation signs with {}, and its nodes trust that one; to change to this key, run \
                         `pilothouse bundle rotate-key --signing-key {}`",
                        own.key,
                        file.display()
                    );
                    return Err(BundleError::Key { path: file.clone(), reason });
                }
                (signer, file.clone())
            }
        };
        state.own = Some(Own { key: signer.public(), file });
        self.save(&state)?;
        Ok(signer)
    }

    fn load(own: &Own) -> Result<SigningKey> {
        let signer = read_key(&own.file)?;
        if signer.public() == own.key {
            return Ok(signer);
        }
        let reason = format!("it is not the key of {}, with which this installation signs; put that one back", own.key);
        Err(BundleError::Key { path: own.file.clone(), reason })
    }

    /// A new private key in a file of its own.
    fn generate(&self) -> Result<(SigningKey, PathBuf)> {
        let refused = |reason| BundleError::Key { path: self.dir.clone(), reason };
        let (signer, pem) = SigningKey::generate().map_err(refused)?;
        let name: String = key(&[&signer.public().to_string()]).chars().take(16).collect();
        let file = self.dir.join(format!("{name}.key"));
        write(&file, pem.as_bytes(), 0o600)?;
        Ok((signer, file))
    }

    /// The key that is to take the place of the own one: the file that was given, or a new one.
    pub(crate) fn successor(&self) -> Result<(SigningKey, PathBuf)> {
        match &self.given {
            Some(file) => Ok((read_key(file)?, file.clone())),
            None => self.generate(),
        }
    }

    /// The own key as it is, whatever file was given.
    pub(crate) fn present(&self) -> Result<SigningKey> {
        self.clone().with_file(None).signer()
    }

    /// Puts the new key in the place of the old one, which signs that; then the old private key goes.
    pub(crate) fn succeed(&self, old: &SigningKey, new: PublicKey, file: PathBuf) -> Result<()> {
        let mut former = None;
        let mut is_first = true;
        self.change(|state| {
            // Another rotation was quicker: two successors of one key would lead nodes astray.
            is_first = state.own.as_ref().is_some_and(|own| own.key == old.public());
            if is_first {
                state.successions.push(Succession::of(old, new));
                former = state.own.replace(Own { key: new, file: file.clone() }).map(|own| own.file);
            }
        })?;
        if !is_first {
            let reason = "the key was rotated by somebody else meanwhile".to_owned();
            return Err(BundleError::Key { path: file, reason });
        }
        // A file of the operator's own is his to remove.
        match former.filter(|file| file.starts_with(&self.dir)) {
            Some(file) => fs::remove_file(&file).at("remove", &file),
            None => Ok(()),
        }
    }

    /// Who signed this manifest, if that counts here.
    pub(crate) fn verify(&self, manifest: &str, envelope: &str) -> Result<Result<Signature, SignatureFault>> {
        let state = self.state()?;
        let mut trusted = self.trusted()?;
        trusted.extend(state.own.map(|own| own.key));
        Ok(judge(manifest, envelope, &trusted))
    }

    /// Whether one of these signatures of a statement counts here: only the own key's does.
    pub(crate) fn vouches(&self, kind: &str, body: &[u8], signatures: &[Signature]) -> bool {
        let own = self.state().ok().and_then(|state| state.own);
        own.is_some_and(|own| {
            signatures.iter().any(|one| one.keyid == own.key && own.key.verifies(kind, body, &one.sig))
        })
    }

    /// From now on this cache is signed in.
    pub(crate) fn note_cache(&self, cache: &Path) -> Result<()> {
        if self.state()?.caches.iter().any(|known| known == cache) {
            return Ok(());
        }
        self.change(|state| state.caches.push(cache.to_owned()))
    }

    /// Every cache that was signed in.
    pub(crate) fn caches(&self) -> Result<Vec<PathBuf>> {
        Ok(self.state()?.caches)
    }

    fn state(&self) -> Result<State> {
        trust::check_alone(&self.dir)?;
        let path = self.dir.join(STATE);
        trust::check_alone(&path)?;
        let text = match fs::read(&path) {
            Ok(text) => text,
            // Another user's home, left in `HOME` by whatever changed the user, holds no keys of ours.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                return Ok(State::default());
            }
            Err(error) => return Err(error).at("read", &path),
        };
        serde_json::from_slice(&text).map_err(|error| BundleError::Key { path, reason: error.to_string() })
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let _lock = self.lock()?;
        let mut state = self.state()?;
        change(&mut state);
        self.save(&state)
    }

    fn save(&self, state: &State) -> Result<()> {
        let text = serde_json::to_vec_pretty(state).unwrap_or_default();
        write(&self.dir.join(STATE), &text, 0o644)
    }

    fn lock(&self) -> Result<File> {
        let made = trust::create(&self.dir);
        made.map_err(|error| match error {
            BundleError::NoCache { path, source } => BundleError::NoKeys { path, source },
            other => other,
        })?;
        let path = self.dir.join("lock");
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).at("open", &path)?;
        file.lock().at("lock", &path)?;
        Ok(file)
    }
}

/// The first signature by a trusted key, if it is of this manifest.
pub(crate) fn judge(manifest: &str, envelope: &str, trusted: &[PublicKey]) -> Result<Signature, SignatureFault> {
    let envelope = Envelope::parse_bundle(envelope).map_err(SignatureFault::Malformed)?;
    let known = envelope.signatures.iter().filter(|one| trusted.contains(&one.keyid));
    let mut wrong = None;
    for one in known {
        if one.keyid.verifies(BUNDLE, manifest.as_bytes(), &one.sig) {
            return Ok(one.clone());
        }
        wrong = Some(one.keyid);
    }
    match (wrong, envelope.signatures.first()) {
        (Some(key), _) => Err(SignatureFault::Wrong(key)),
        (None, Some(one)) => Err(SignatureFault::Unknown(one.keyid)),
        (None, None) => Err(SignatureFault::Missing),
    }
}

fn read_key(path: &Path) -> Result<SigningKey> {
    let refused = |reason| BundleError::Key { path: path.to_owned(), reason };
    let data = fs::metadata(path).at("look at", path)?;
    if data.mode() & 0o077 != 0 {
        return Err(refused(format!("others may use it (mode {:04o}); run `chmod 600` on it", data.mode() & 0o7777)));
    }
    let text = Zeroizing::new(fs::read_to_string(path).at("read", path)?);
    SigningKey::parse(&text).map_err(refused)
}

/// Writes a file so that it is the old one or the new one, on disk when this returns.
fn write(path: &Path, text: &[u8], mode: u32) -> Result<()> {
    workdir::replace(path, text, mode, path.parent().unwrap_or(path)).at("write", path)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::new(dir.path().join("signing"));
        let own = keys.own().unwrap();
        assert_eq!(keys.own().unwrap(), own);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = keys.state().unwrap().own.unwrap().file;
        assert_eq!((mode(&file), mode(&keys.dir().join(STATE))), (0o600, 0o644));
        let public = fs::read_to_string(keys.dir().join(STATE)).unwrap();
        assert!(!public.contains(fs::read_to_string(&file).unwrap().lines().nth(1).unwrap()));

        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert!(keys.own().unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(keys.dir(), Permissions::from_mode(0o777)).unwrap();
        assert!(keys.own().unwrap_err().to_string().contains("chmod go-w"), "who may write there may trust anybody");
    }

    #[test]
    fn a_given_key_is_kept_and_another_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let (key, pem) = SigningKey::generate().unwrap();
            let path = dir.path().join(name);
            write(&path, pem.as_bytes(), 0o600).unwrap();
            (key.public(), path)
        };
        let ((first, one), (_, two)) = (file("one"), file("two"));
        let keys = Keys::new(dir.path().join("signing"));
        assert_eq!(keys.clone().with_file(Some(one)).own().unwrap(), first);
        assert_eq!(keys.own().unwrap(), first, "kept for later");
        let error = keys.clone().with_file(Some(two.clone())).own().unwrap_err().to_string();
        assert!(error.contains("rotate-key --signing-key"), "{error}");
        // Whoever puts another private key in its place does not become the installation.
        fs::copy(&two, dir.path().join("one")).unwrap();
        assert!(keys.own().unwrap_err().to_string().contains("it is not the key of"));
    }
}
