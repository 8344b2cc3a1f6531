//! Parts of the bundle by checksum: from the seed directory, in place; otherwise over the node link, resumed where it broke off.
//!
//! A part is usable under its name in `parts/<sha256>` only after its size and SHA-256 were seen to be right. What was verified is
//! remembered with size, time and inode, so that a restart does not read hundreds of megabytes again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use node_linux::files::{self, FileError};
use node_protocol::node_link_client::NodeLinkClient;
use node_protocol::{Part, PartKind, program};
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;

use crate::arrivals::Arrivals;
use crate::partial::{Partial, Sum};
use crate::spec::{Image, NodeSpec};
use crate::{kube_proxy, kubelet};

/// How many parts travel at once.
const PARALLEL: usize = 3;

/// How often a broken transfer is taken up again before the caller hears of it.
const ATTEMPTS: u32 = 8;

/// What this node has a use for.
pub fn needed(parts: &[Part]) -> Vec<Part> {
    parts
        .iter()
        .filter(|part| part.kind() != PartKind::Binary || program::ALL.contains(&part.name.as_str()))
        .cloned()
        .collect()
}

/// A part that is not there, or not itself.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The checksum in the configuration is not a SHA-256.
    #[error("part {name}: {sha256:?} is not a sha-256 in lower-case hex")]
    BadChecksum {
        /// The part.
        name: String,
        /// What it said.
        sha256: String,
    },
    /// The part's name would be a path.
    #[error("part {name:?}: a name has only letters, digits, dots and dashes")]
    BadName {
        /// What it said.
        name: String,
    },
    /// The bytes that arrived are not the part.
    #[error("part {name}: got {got} instead of {expected}; it was thrown away")]
    Mismatch {
        /// The part.
        name: String,
        /// Size and checksum as promised.
        expected: String,
        /// Size and checksum as found.
        got: String,
    },
    /// A packed chunk that cannot be unpacked.
    #[error("part {name}: unpack what came")]
    Packed {
        /// The part.
        name: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The platform did not give it.
    #[error("part {name}: {} ({:?})", status.message(), status.code())]
    Refused {
        /// The part.
        name: String,
        /// What the platform said.
        status: Box<tonic::Status>,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A step on another thread was lost.
    #[error("a step was cut off")]
    Lost(#[from] tokio::task::JoinError),
}

/// A file as it was when its checksum was right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    sha256: String,
    size: u64,
    modified: i64,
    inode: u64,
}

impl Stamp {
    fn of(path: &Path, sha256: &str) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let modified = meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec());
        Some(Self { sha256: sha256.into(), size: meta.len(), modified, inode: meta.ino() })
    }
}

/// Parts on this machine.
#[derive(Debug, Clone)]
pub struct PartStore {
    dir: PathBuf,
    seed: Option<PathBuf>,
}

impl PartStore {
    /// Parts in `dir`; `seed` is looked at first.
    pub fn new(dir: PathBuf, seed: Option<PathBuf>) -> Self {
        Self { dir, seed }
    }

    /// Where a part lies.
    pub fn path(&self, sha256: &str) -> PathBuf {
        self.dir.join(sha256)
    }

    fn stamps(&self) -> PathBuf {
        self.dir.join("verified.json")
    }

    /// Makes every part usable, several at a time, the first ones first; `arrivals` hears of each.
    pub async fn ensure_all(
        &self,
        parts: &[Part],
        link: &NodeLinkClient<Channel>,
        arrivals: &Arrivals,
    ) -> Result<(), FetchError> {
        files::make_dir(&self.dir)?;
        let each = futures::stream::iter(parts).map(async |part| {
            let stamp = self.ensure(part, link.clone()).await;
            if stamp.is_ok() {
                arrivals.note(&part.name);
            }
            stamp
        });
        let stamps: Vec<(String, Stamp)> =
            each.buffer_unordered(PARALLEL).try_filter_map(async |new| Ok(new)).try_collect().await?;
        self.remember(stamps)?;
        Ok(())
    }

    fn remember(&self, new: Vec<(String, Stamp)>) -> Result<(), FileError> {
        if new.is_empty() {
            return Ok(());
        }
        let mut known: BTreeMap<String, Stamp> = files::read_json(&self.stamps()).ok().flatten().unwrap_or_default();
        known.extend(new);
        known.retain(|path, _| Path::new(path).exists());
        files::write_json(&self.stamps(), &known, 0o600)
    }

    fn known(&self, path: &Path, sha256: &str) -> bool {
        let known: BTreeMap<String, Stamp> = files::read_json(&self.stamps()).ok().flatten().unwrap_or_default();
        let stamp = known.get(path.to_string_lossy().as_ref());
        stamp.is_some() && stamp == Stamp::of(path, sha256).as_ref()
    }

    /// Makes one part usable; returns the stamp when it was verified just now.
    async fn ensure(&self, part: &Part, link: NodeLinkClient<Channel>) -> Result<Option<(String, Stamp)>, FetchError> {
        let sha256 = &part.sha256;
        if !is_plain(&part.name) {
            return Err(FetchError::BadName { name: part.name.clone() });
        }
        if sha256.len() != 64 || !sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(FetchError::BadChecksum { name: part.name.clone(), sha256: sha256.clone() });
        }
        let path = self.path(sha256);
        if self.known(&path, sha256) {
            return Ok(None);
        }
        if !self.verified(path.clone(), part).await? && !self.use_seed(part).await? {
            self.fetch(part, link).await?;
        }
        Ok(Stamp::of(&path, sha256).map(|stamp| (path.to_string_lossy().into_owned(), stamp)))
    }

    /// What a node cannot be ready without, and the rest, each in the order of need; all at once when the rest is on the machine already.
    pub fn in_two_goes(&self, parts: &[Part]) -> (Vec<Part>, Vec<Part>) {
        let here =
            |part: &Part| self.path(&part.sha256).exists() || self.seeded(part).is_some_and(|path| path.exists());
        let makes_ready =
            |part: &Part| part.name == "pause" || part.kind() == PartKind::Binary && part.name != kube_proxy::NAME;
        let (mut first, mut later): (Vec<Part>, Vec<Part>) =
            parts.iter().cloned().partition(|part| makes_ready(part) || here(part));
        first.sort_by_key(|part| part.name == kubelet::NAME);
        later.sort_by_key(|part| part.kind() != PartKind::Binary);
        (first, later)
    }

    fn seeded(&self, part: &Part) -> Option<PathBuf> {
        Some(self.seed.as_ref()?.join(&part.sha256))
    }

    /// Verifies files that lie elsewhere, two at a time, unless they are as they were when their checksums were last right. Blocks.
    pub fn verify_in_place(&self, files: &[(&Path, Part)]) -> Result<(), FetchError> {
        let unknown: Vec<_> = files.iter().filter(|(path, part)| !self.known(path, &part.sha256)).collect();
        let (left, right) = unknown.split_at(unknown.len() / 2);
        let all = |some: &[&(&Path, Part)]| some.iter().try_for_each(|(path, part)| verify(path, part));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| all(right));
            all(left)?;
            other.join().unwrap_or(Ok(()))
        })?;
        let stamp =
            |(path, part): &&(&Path, Part)| Some((path.to_string_lossy().into_owned(), Stamp::of(path, &part.sha256)?));
        Ok(self.remember(unknown.iter().filter_map(stamp).collect())?)
    }

    async fn verified(&self, path: PathBuf, part: &Part) -> Result<bool, FetchError> {
        if !path.exists() {
            return Ok(false);
        }
        let part = part.clone();
        let verified = tokio::task::spawn_blocking(move || verify(&path, &part)).await?;
        Ok(verified.is_ok())
    }

    /// Uses a part of the seed directory where it lies.
    async fn use_seed(&self, part: &Part) -> Result<bool, FetchError> {
        let Some(seeded) = self.seeded(part) else { return Ok(false) };
        if !self.verified(seeded.clone(), part).await? {
            return Ok(false);
        }
        let path = self.path(&part.sha256);
        adopt_file(&seeded, &path, part.kind() == PartKind::Binary)?;
        Ok(true)
    }

    /// Takes a part over the link, resuming what an earlier attempt left.
    async fn fetch(&self, part: &Part, mut link: NodeLinkClient<Channel>) -> Result<(), FetchError> {
        let mut partial = Partial::open(self.dir.clone(), part.clone()).await?;
        let mut attempt = 0;
        loop {
            let end;
            (partial, end) = partial.take(&mut link).await?;
            let Err(status) = end else { break };
            attempt += 1;
            let again = matches!(
                status.code(),
                tonic::Code::Unavailable
                    | tonic::Code::Unknown
                    | tonic::Code::Cancelled
                    | tonic::Code::Internal
                    | tonic::Code::Aborted
            );
            if !again || attempt == ATTEMPTS {
                return Err(FetchError::Refused { name: part.name.clone(), status });
            }
            tracing::warn!(part = part.name, reason = status.message(), "transfer broke off; resuming");
            tokio::time::sleep(Duration::from_millis(200) * 2_u32.pow(attempt.min(5))).await;
        }
        partial.finish()
    }
}

/// True for a name that is one harmless path component.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}

/// Compares size and SHA-256 with what was promised. Blocks.
pub fn verify(path: &Path, part: &Part) -> Result<(), FetchError> {
    let mut file = File::open(path).map_err(files::io("open", path))?;
    let size = file.metadata().map_err(files::io("look at", path))?.len();
    let mut sum = Sum::default();
    if part.size == 0 || size == part.size {
        sum.read(&mut file).map_err(files::io("read", path))?;
    } else {
        sum.length = size;
    }
    sum.verify(part)
}

/// Makes `path` mean the file `source`: as a link where it lies, or as a copy when a program there may not be executed.
pub fn adopt_file(source: &Path, path: &Path, executable: bool) -> Result<(), FileError> {
    let mode = fs::metadata(source).map_err(files::io("look at", source))?.permissions().mode();
    if !executable || mode & 0o111 != 0 {
        return files::relink(source, path);
    }
    let staged = path.with_extension("copying");
    let copied = fs::copy(source, &staged)
        .and_then(|_| fs::set_permissions(&staged, fs::Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&staged, path));
    copied.map_err(files::io("copy", source))
}

/// Links the programs among `parts` under their plain names, and returns the images and a digest over the programs.
pub fn install(
    parts: &[Part],
    spec_bin: &Path,
    path_of: impl Fn(&Part) -> PathBuf,
) -> Result<(Vec<Image>, String), FileError> {
    let mut programs: Vec<String> = Vec::new();
    let mut images = Vec::new();
    for part in parts.iter().filter(|part| is_plain(&part.name)) {
        if part.kind() == PartKind::Binary {
            files::relink(&path_of(part), &spec_bin.join(&part.name))?;
            programs.push(format!("{}={}", part.name, part.sha256));
        } else {
            let (name, reference) = (part.name.clone(), part.image.clone());
            images.push(Image { name, reference, archive: path_of(part), sha256: part.sha256.clone() });
        }
    }
    programs.sort();
    Ok((images, programs.join(" ")))
}

/// Puts what [`install`] returned into a spec: images, the sandbox image, the digest.
pub fn fill(spec: &mut NodeSpec, images: Vec<Image>, digest: String) {
    if let Some(pause) = images.iter().find(|image| image.name == "pause") {
        spec.sandbox_image.clone_from(&pause.reference);
    }
    spec.images = images;
    spec.programs_digest = digest;
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
