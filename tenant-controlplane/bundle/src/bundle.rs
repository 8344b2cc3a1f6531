//! A built bundle: opened, asked for its parts, checked, given another agent, listed.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::build::{blocking, recipe_of};
use crate::cache::{Cache, PROGRAM, digest, key};
use crate::error::At;
use crate::hold::hold;
use crate::manifest::{Artefact, Kind, Manifest};
use crate::signature::{BUNDLE, Envelope, PublicKey, Signature, SigningKey, Succession};
use crate::{BundleError, Damage, Progress, Report, Result, SignatureFault, Version, agent, prune, trust};

pub(crate) const FILE: &str = "bundle.json";
/// Beside the manifest: its signatures.
pub(crate) const SIGNATURE: &str = "bundle.json.sig";
/// Beside the manifest: what the bundle was made by, see [`crate::catalog::Catalog::recipe`].
const RECIPE: &str = "recipe";

/// A bundle in a cache. Its manifest is in memory; its bytes are files. While it lives, [`mod@crate::prune`] spares it.
#[derive(Debug, Clone)]
pub struct Bundle {
    cache: Cache,
    id: String,
    manifest: Manifest,
    /// The manifest as it was signed.
    text: String,
    signature: Signature,
    /// Locked for sharing; nothing for somebody who may only read the cache.
    _hold: Option<Arc<File>>,
}

/// A manifest with what makes others believe it: for nodes, which trust one key of their installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text of `bundle.json` as it was signed.
    pub manifest: String,
    /// Signature by the installation's key.
    pub signature: Signature,
    /// How that key came to its place, the oldest first.
    pub successions: Vec<Succession>,
}

/// One line of [`list`].
#[derive(Debug, Clone)]
pub struct Summary {
    /// `<version>-<hash>`.
    pub id: String,
    /// Kubernetes version.
    pub kubernetes: String,
    /// Whether this is the one [`Bundle::open`] takes for its version.
    pub current: bool,
    /// How many parts it has.
    pub parts: usize,
    /// Bytes of all its parts.
    pub size: u64,
    /// When its manifest was written.
    pub built: SystemTime,
}

impl Bundle {
    /// Opens the current bundle of a version. Looks that every part is there with its size, but reads none of them:
    /// it takes a millisecond. [`Bundle::build`] and [`Bundle::verify`] read them.
    ///
    /// # Errors
    /// [`BundleError::NotBuilt`], [`BundleError::Damaged`], [`BundleError::Signature`], the manifest cannot be read, or
    /// [`BundleError::Untrusted`]: others may write to the cache.
    pub fn open(cache: &Cache, version: Version) -> Result<Bundle> {
        trust::check(cache.dir())?;
        let dir = cache.bundles().join(version.as_str());
        let id = match fs::read_link(&dir) {
            Ok(target) => target.to_string_lossy().into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let version = version.to_string();
                return Err(BundleError::NotBuilt { version, cache: cache.dir().to_owned() });
            }
            Err(error) => return Err(error).at("read", &dir),
        };
        // By its id: the link may point elsewhere a moment later.
        let bundle = Bundle::believe(cache, version, id)?;
        bundle.damage(size_differs)?;
        Ok(bundle)
    }

    /// Reads a manifest after its signature was seen to be right. Looks at no part.
    fn believe(cache: &Cache, version: Version, id: String) -> Result<Bundle> {
        let dir = cache.bundles().join(&id);
        let path = dir.join(FILE);
        let hold = hold(&dir)?;
        let text = fs::read_to_string(&path).at("read", &path)?;
        let refused = |fault| BundleError::Signature {
            bundle: id.clone(),
            version: version.to_string(),
            cache: cache.dir().to_owned(),
            fault,
        };
        let signature = match fs::read_to_string(dir.join(SIGNATURE)) {
            Ok(envelope) => cache.keys().verify(&text, &envelope)?.map_err(refused)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(refused(SignatureFault::Missing)),
            Err(error) => return Err(error).at("read", &dir.join(SIGNATURE)),
        };
        let manifest = Manifest::parse(&text).map_err(|reason| BundleError::Table { path, reason })?;
        if manifest.kubernetes != version.as_str() {
            return Err(refused(SignatureFault::OtherVersion(manifest.kubernetes)));
        }
        Ok(Bundle { cache: cache.clone(), id, manifest, text, signature, _hold: hold })
    }

    /// Every bundle of a version that a trusted key signed: the current one, then the newest. What is wrong with others is not said.
    pub(crate) fn believed(cache: &Cache, version: Version) -> Result<Vec<Bundle>> {
        let current = fs::read_link(cache.bundles().join(version.as_str())).ok();
        let age = |dir: &Path| fs::metadata(dir.join(FILE)).and_then(|data| data.modified()).ok();
        let mut dirs = prune::children(&cache.bundles())?;
        dirs.retain(|dir| dir.is_dir() && !dir.is_symlink());
        dirs.sort_by_key(|dir| Reverse((current.as_deref() == dir.file_name().map(Path::new), age(dir))));
        let ids = dirs.iter().filter_map(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()));
        Ok(ids.filter_map(|id| Bundle::believe(cache, version, id).ok()).collect())
    }

    /// Whether the cache has a bundle of a version that a trusted key signed and that [`Bundle::build`] keeps as it is: nothing has to be
    /// compiled or fetched. The bytes themselves are looked at by the build.
    pub fn is_current(cache: &Cache, version: Version) -> bool {
        let as_made_now = |bundle: &Bundle| recipe_of(&bundle.manifest).is_some_and(|now| bundle.recipe() == Some(now));
        Bundle::believed(cache, version).is_ok_and(|bundles| bundles.iter().any(as_made_now))
    }

    /// The manifest for nodes that trust `key`: as that signed it, or, where it is the installation's own, signed by it now.
    ///
    /// # Errors
    /// [`BundleError::Signature`]: somebody else signed it, and `key` is not the own one; or the own key cannot be used.
    pub fn statement(&self, key: PublicKey) -> Result<Statement> {
        let keys = self.cache.keys();
        let signature = if self.signature.keyid == key {
            self.signature.clone()
        } else if keys.known_own()? == Some(key) {
            keys.signer()?.sign(BUNDLE, self.text.as_bytes())
        } else {
            let (bundle, version) = (self.id.clone(), self.manifest.kubernetes.clone());
            let fault = SignatureFault::Unknown(self.signature.keyid);
            return Err(BundleError::Signature { bundle, version, cache: self.cache.dir().to_owned(), fault });
        };
        Ok(Statement { manifest: self.text.clone(), signature, successions: keys.successions(key)? })
    }

    /// Who signed it.
    pub fn signer(&self) -> PublicKey {
        self.signature.keyid
    }

    /// The manifest as it was signed, and its signature.
    pub(crate) fn signed(&self) -> (&str, &Signature) {
        (&self.text, &self.signature)
    }

    /// Opens the current bundle of a version from the default cache, or else from the machine's.
    ///
    /// # Errors
    /// As [`Bundle::open`], of the last cache tried.
    pub fn locate(version: Version) -> Result<Bundle> {
        let mut result = Err(BundleError::NotBuilt { version: version.to_string(), cache: Cache::default_dir() });
        for cache in Cache::candidates() {
            match Bundle::open(&cache, version) {
                Err(BundleError::NotBuilt { .. }) => continue,
                // Another user's home, left in `HOME` by whatever changed the user.
                Err(BundleError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => continue,
                other => result = other,
            }
            break;
        }
        result
    }

    /// Writes the manifest, signs it and makes it the current one of its version.
    pub(crate) fn record(cache: &Cache, manifest: Manifest, recipe: Option<&str>) -> Result<Bundle> {
        let text = manifest.to_json();
        let hash: String = key(&[&text]).chars().take(12).collect();
        let id = format!("{}-{hash}", manifest.kubernetes);
        let dir = cache.bundles().join(&id);
        trust::create(&dir)?;
        let path = dir.join(FILE);
        // Equal contents stay the same file: others may hold it.
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            File::open(&path).and_then(|file| file.set_modified(SystemTime::now())).at("touch", &path)?;
        } else {
            cache.replace(&path, text.as_bytes())?;
        }
        let signature = sign(cache, &dir, &text, &cache.keys().signer()?)?;
        cache.keys().note_cache(cache.dir())?;
        if let Some(recipe) = recipe {
            cache.replace(&dir.join(RECIPE), recipe.as_bytes())?;
        }
        let hold = hold(&dir)?;
        let (scratch, pointer) = (cache.scratch(), cache.bundles().join(&manifest.kubernetes));
        symlink(&id, &scratch).at("write", &scratch)?;
        fs::rename(&scratch, &pointer).at("write", &pointer)?;
        Ok(Bundle { cache: cache.clone(), id, manifest, text, signature, _hold: hold })
    }

    /// What it was made by, if that was written down.
    pub(crate) fn recipe(&self) -> Option<String> {
        fs::read_to_string(self.cache.bundles().join(&self.id).join(RECIPE)).ok()
    }

    /// Reads a part and compares it with its checksum.
    pub(crate) fn is_whole(&self, artefact: &Artefact) -> bool {
        checksum_differs(artefact, &self.path(artefact)).is_none()
    }

    /// `<version>-<hash>`; equal for equal contents.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The cache it lies in.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The list as written to `bundle.json`.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Every part, sorted by name.
    pub fn artefacts(&self) -> &[Artefact] {
        &self.manifest.artefacts
    }

    /// A program by name, the agent (`pilothouse-node`) included.
    pub fn artefact(&self, name: &str) -> Option<&Artefact> {
        self.artefacts().iter().find(|artefact| artefact.kind != Kind::Image && artefact.name == name)
    }

    /// An image by its component's name.
    pub fn image(&self, name: &str) -> Option<&Artefact> {
        self.artefacts().iter().find(|artefact| artefact.kind == Kind::Image && artefact.name == name)
    }

    /// The part with these bytes (SHA-256, lower-case hex).
    pub fn by_sha256(&self, sha256: &str) -> Option<&Artefact> {
        self.artefacts().iter().find(|artefact| artefact.sha256 == sha256)
    }

    /// Where a part's bytes are.
    pub fn path(&self, artefact: &Artefact) -> PathBuf {
        self.cache.blob(&artefact.sha256)
    }

    /// The file of a program by name, ready to be executed.
    ///
    /// # Errors
    /// [`BundleError::NoArtefact`].
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        self.artefact(name).map(|artefact| self.path(artefact)).ok_or_else(|| self.lacks("binary", name))
    }

    /// [`Bundle::program`], after its bytes were compared with its checksum.
    ///
    /// # Errors
    /// [`BundleError::NoArtefact`], [`BundleError::Damaged`].
    pub fn proven_program(&self, name: &str) -> Result<PathBuf> {
        self.damage(|artefact, path| if artefact.name == name { checksum_differs(artefact, path) } else { None })?;
        self.program(name)
    }

    /// The reference of an image by its component's name: `pilothouse.local/etcd:3.6.16`.
    ///
    /// # Errors
    /// [`BundleError::NoArtefact`].
    pub fn image_ref(&self, name: &str) -> Result<&str> {
        self.image(name).and_then(|artefact| artefact.image.as_deref()).ok_or_else(|| self.lacks("image", name))
    }

    fn lacks(&self, kind: &'static str, name: &str) -> BundleError {
        BundleError::NoArtefact { bundle: self.id.clone(), kind, name: name.to_owned() }
    }

    /// Reads every part and compares it with its checksum. Blocks for a second or two.
    ///
    /// # Errors
    /// [`BundleError::Damaged`], naming every part that changed and what to do.
    pub fn verify(&self, report: Report<'_>) -> Result<()> {
        self.damage(|artefact, path| {
            let begun = Instant::now();
            let found = size_differs(artefact, path).or_else(|| checksum_differs(artefact, path));
            if found.is_none() {
                let (name, size, elapsed) = (artefact.name.clone(), artefact.size, begun.elapsed());
                report(Progress::Done { name, size, elapsed, cached: false });
            }
            found
        })
    }

    /// Fails with every part for which `differs` gives a reason.
    fn damage(&self, differs: impl Fn(&Artefact, &Path) -> Option<String>) -> Result<()> {
        let check = |artefact: &Artefact| {
            let file = self.path(artefact);
            differs(artefact, &file).map(|reason| Damage { name: artefact.name.clone(), file, reason })
        };
        let damage: Vec<Damage> = self.manifest.blobs().filter_map(check).collect();
        if damage.is_empty() {
            return Ok(());
        }
        Err(BundleError::Damaged { bundle: self.id.clone(), version: self.manifest.kubernetes.clone(), damage })
    }

    /// The same bundle with another agent, made the current one. Nothing else is built or fetched.
    ///
    /// # Errors
    /// The file is not a static program, or cannot be stored.
    pub async fn with_agent(&self, path: &Path, report: Report<'_>) -> Result<Bundle> {
        agent::check(path)?;
        let _lock = self.cache.lock(report).await?;
        let (cache, from) = (self.cache.clone(), path.to_owned());
        let stored = blocking(move || cache.copy_in(&from, PROGRAM)).await?;
        let others = self.artefacts().iter().filter(|artefact| artefact.kind != Kind::Agent).cloned();
        let artefacts = others.chain([agent::artefact(&stored)]).collect();
        let manifest = Manifest::new(&self.manifest.kubernetes, artefacts);
        Bundle::record(&self.cache, manifest, self.recipe().as_deref())
    }
}

/// Writes the own key's signature of a manifest beside it.
pub(crate) fn sign(cache: &Cache, dir: &Path, text: &str, signer: &SigningKey) -> Result<Signature> {
    let signature = signer.sign(BUNDLE, text.as_bytes());
    let envelope = Envelope::of_bundle(vec![signature.clone()]).to_json();
    let path = dir.join(SIGNATURE);
    if !fs::read_to_string(&path).is_ok_and(|old| old == envelope) {
        cache.replace(&path, envelope.as_bytes())?;
    }
    Ok(signature)
}

fn size_differs(artefact: &Artefact, path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(data) if data.len() == artefact.size => None,
        Ok(data) => Some(format!("{} bytes instead of {}", data.len(), artefact.size)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("missing".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

fn checksum_differs(artefact: &Artefact, path: &Path) -> Option<String> {
    match digest(path) {
        Ok(stored) if stored.sha256 == artefact.sha256 => None,
        Ok(stored) => Some(format!("checksum is {} now", stored.sha256)),
        Err(error) => Some(error.to_string()),
    }
}

pub(crate) fn read(path: &Path) -> Result<Manifest> {
    let text = fs::read_to_string(path).at("read", path)?;
    Manifest::parse(&text).map_err(|reason| BundleError::Table { path: path.to_owned(), reason })
}

/// Every bundle of a cache, current and earlier ones, by id. An absent cache has none.
///
/// # Errors
/// The cache cannot be read.
pub fn list(cache: &Path) -> Result<Vec<Summary>> {
    let dir = Cache::new(cache).bundles();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("read", &dir),
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.at("read", &dir)?;
        if entry.file_type().at("look at", &entry.path())?.is_dir() {
            all.push(summary(&dir, &entry.path())?);
        }
    }
    all.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(all)
}

fn summary(bundles: &Path, dir: &Path) -> Result<Summary> {
    let path = dir.join(FILE);
    let manifest = read(&path)?;
    let built = fs::metadata(&path).and_then(|data| data.modified()).at("look at", &path)?;
    let id = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let current = fs::read_link(bundles.join(&manifest.kubernetes)).is_ok_and(|target| target == Path::new(&id));
    let (parts, size) = (manifest.artefacts.len(), manifest.size());
    Ok(Summary { id, kubernetes: manifest.kubernetes, current, parts, size, built })
}
