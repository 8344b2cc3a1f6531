//! Everything that can go wrong with a bundle, worded for the person who has to act on it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::progress::bytes;
use crate::signature::PublicKey;

/// Why a bundle could not be built, opened, checked or moved. Each message ends in the next step where there is one.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The asked-for Kubernetes version has no pins here.
    #[error("unknown Kubernetes version `{asked}`; known versions: {known}")]
    UnknownVersion {
        /// What was asked for.
        asked: String,
        /// The versions there are, comma separated.
        known: String,
    },
    /// The source's name is none of `auto`, `release`, `modules`.
    #[error("unknown source `{asked}`; use auto, release or modules")]
    UnknownSource {
        /// What was asked for.
        asked: String,
    },
    /// Neither source can be used on this machine.
    #[error("no source for the bundle: release: {release}; modules: {modules}")]
    NoSource {
        /// Why official artefacts cannot be used.
        release: String,
        /// Why building from modules cannot be done.
        modules: String,
    },
    /// The release source needs a table of checksums, and there is none.
    #[error(
        "no checksums are known for the release of {version} on {arch} (only amd64 is pinned so far); name a checksum file, or use the source `modules`"
    )]
    NoChecksums {
        /// The Kubernetes version.
        version: String,
        /// This machine's architecture.
        arch: &'static str,
    },
    /// Some programs have no pinned official artefact, and cannot be built either.
    #[error("no official artefact is pinned for {names}: they are built from source, and {reason}")]
    Unpinned {
        /// The programs, comma separated.
        names: String,
        /// Why they cannot be built.
        reason: String,
    },
    /// A table of checksums, or the built-in catalog, is not well-formed.
    #[error("read {path}: {reason}")]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers at the release server's address.
    #[error("no answer from {url} within 2 s")]
    Unreachable {
        /// The base address.
        url: String,
        /// What the connection said, if anything.
        source: Option<reqwest::Error>,
    },
    /// The release server did not answer, or the connection broke more often than is worth retrying.
    #[error("fetch {name} from {url}; what arrived is kept, run it again to resume")]
    Fetch {
        /// The artefact.
        name: String,
        /// Where it was fetched from.
        url: String,
        /// What the connection said.
        source: reqwest::Error,
    },
    /// The release server refused.
    #[error("fetch {name} from {url}: the server answered {status}")]
    FetchStatus {
        /// The artefact.
        name: String,
        /// Where it was fetched from.
        url: String,
        /// The HTTP status code.
        status: u16,
    },
    /// The connection kept ending early.
    #[error("fetch {name} from {url}: only {have} of {want} bytes arrived; run it again to resume")]
    FetchShort {
        /// The artefact.
        name: String,
        /// Where it was fetched from.
        url: String,
        /// Bytes that arrived.
        have: u64,
        /// Bytes that were announced.
        want: u64,
    },
    /// More bytes than any artefact has. They were thrown away.
    #[error("fetch {name} from {url}: more than {}, nothing of it was kept; is this the right server?", bytes(*limit))]
    TooLarge {
        /// The artefact.
        name: String,
        /// Where it was fetched from.
        url: String,
        /// Bytes that would have been taken.
        limit: u64,
    },
    /// Downloaded bytes are not the pinned ones. They were thrown away.
    #[error("checksum of {name} from {url} is wrong: expected {expected}, got {actual}; nothing of it was kept")]
    Checksum {
        /// The artefact.
        name: String,
        /// Where it was fetched from.
        url: String,
        /// The pinned SHA-256 or SHA-512, hex.
        expected: String,
        /// The same of what arrived, hex.
        actual: String,
    },
    /// A release archive does not hold the file it should.
    #[error("archive of {name} has no member `{member}`")]
    Member {
        /// The artefact.
        name: String,
        /// The path inside the archive.
        member: String,
    },
    /// The disk is too small.
    #[error(
        "disk too small at {path}: {} needed, {} free; free some, or choose a larger disk by PILOTHOUSE_CACHE and TMPDIR",
        bytes(*need),
        bytes(*free)
    )]
    Space {
        /// A path on that disk.
        path: PathBuf,
        /// Bytes needed at most.
        need: u64,
        /// Bytes free now.
        free: u64,
    },
    /// A program this machine needs is missing.
    #[error("`{tool}` not found; {hint}")]
    Tool {
        /// The program, or library.
        tool: &'static str,
        /// How to get it.
        hint: String,
    },
    /// The Go toolchain is too old for the pinned modules.
    #[error("go is {found}, {group} needs {needs} or newer; install a newer Go toolchain")]
    OldGo {
        /// The version there is.
        found: String,
        /// What cannot be built with it.
        group: String,
        /// The least version.
        needs: String,
    },
    /// A child process failed.
    #[error("{what} failed ({status}):\n{tail}")]
    Command {
        /// What it was doing.
        what: String,
        /// Its exit status.
        status: String,
        /// The last lines it wrote.
        tail: String,
    },
    /// A program that goes into an image or to foreign machines needs libraries of this machine.
    #[error("{path} is not a statically linked program; {hint}")]
    NotStatic {
        /// The program.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// The agent is nowhere to be found.
    #[error(
        "no static `pilothouse-node` found; put one beside this program, name one, or name the workspace to build it in"
    )]
    NoAgent,
    /// Only root can do this.
    #[error("{what} needs root; run it with sudo")]
    NotRoot {
        /// What was tried.
        what: &'static str,
    },
    /// A file operation failed.
    #[error("{verb} {path}")]
    Io {
        /// What was tried: `read`, `write`, `rename` …
        verb: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The cache, or a part of it, cannot be made where it should be.
    #[error("create {path} for the cache of programs; name another by --cache or PILOTHOUSE_CACHE")]
    NoCache {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else could choose what is executed from the cache.
    #[error("{path} is not safe for a cache of programs: {reason}")]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// Who may change it, and what to do.
        reason: String,
    },
    /// Somebody else could choose what is built there.
    #[error("{path} is no safe place to build programs: {reason}")]
    UnsafeBuild {
        /// The directory.
        path: PathBuf,
        /// Who may change it, and what to do.
        reason: String,
    },
    /// The directory of keys cannot be made where it should be.
    #[error("create {path} for the signing key; name another place by PILOTHOUSE_SIGNING_DIR")]
    NoKeys {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A signing key, or the list of keys, cannot be used.
    #[error("use the signing key {path}: {reason}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Nobody trusted says that the bundle is what it should be.
    #[error("bundle {bundle} in {cache} {fault}; nothing of it was used. {}", fault.in_cache(version))]
    Signature {
        /// The bundle's id.
        bundle: String,
        /// The Kubernetes version that was asked for.
        version: String,
        /// The cache.
        cache: PathBuf,
        /// What is wrong.
        fault: SignatureFault,
    },
    /// There is no bundle of that version in the cache.
    #[error("no bundle of {version} in {cache}; run `pilothouse bundle build --version {version}`")]
    NotBuilt {
        /// The Kubernetes version.
        version: String,
        /// The cache that was looked into.
        cache: PathBuf,
    },
    /// The bundle has no such part.
    #[error("bundle {bundle} has no {kind} `{name}`")]
    NoArtefact {
        /// The bundle's id.
        bundle: String,
        /// `binary` or `image`.
        kind: &'static str,
        /// The name looked for.
        name: String,
    },
    /// Some bytes are missing or differ from their checksum.
    #[error(
        "bundle {bundle} is damaged: {}; run `pilothouse bundle build --version {version}`, it replaces just these",
        join(damage)
    )]
    Damaged {
        /// The bundle's id.
        bundle: String,
        /// Its Kubernetes version.
        version: String,
        /// Each damaged part.
        damage: Vec<Damage>,
    },
    /// An exported archive is not one, or is incomplete.
    #[error("import {path}: {reason}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a bundle's manifest is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// There is none.
    #[error("has no signature")]
    Missing,
    /// It is none.
    #[error("has a signature that cannot be read: {0}")]
    Malformed(String),
    /// It is by somebody of whom nothing is known.
    #[error("is signed by {0}, which is not trusted here")]
    Unknown(PublicKey),
    /// The key never signed this.
    #[error("is not what {0} signed")]
    Wrong(PublicKey),
    /// It is another bundle than was asked for.
    #[error("is of Kubernetes {0} and stood in the place of another version")]
    OtherVersion(String),
}

impl BundleError {
    /// The same of a directory that builds are made in.
    pub(crate) fn while_building(self) -> BundleError {
        match self {
            BundleError::Untrusted { path, reason } => {
                BundleError::UnsafeBuild { path, reason: format!("{reason}, or name another place by TMPDIR") }
            }
            other => other,
        }
    }
}

impl SignatureFault {
    fn in_cache(&self, version: &str) -> String {
        let again =
            format!("`pilothouse bundle build --version {version}` makes it again from what is signed or pinned");
        match self {
            SignatureFault::Missing => format!(
                "An older pilothouse made it, or somebody who must not: {again}; `pilothouse bundle import FILE` takes one from another machine"
            ),
            SignatureFault::Unknown(key) => format!(
                "If you know whose key that is, run `pilothouse bundle trust {key}`. If not, somebody else can write to this cache: {again}"
            ),
            _ => format!("It was changed after it was signed: find out who can write to this cache; {again}"),
        }
    }

    /// The whole sentence for an archive.
    pub(crate) fn in_archive(&self) -> String {
        let next = match self {
            SignatureFault::Missing => "export it again where it was made, by a pilothouse that signs".to_owned(),
            SignatureFault::Unknown(key) => format!(
                "ask whoever exported it for their key (`pilothouse bundle key` prints it), by another way than the archive came; if it \
                 is this one: `pilothouse bundle import --trust {key} FILE`"
            ),
            _ => "it was changed after it was signed: get it again from whoever made it".to_owned(),
        };
        format!("the bundle in it {self}; nothing was imported; {next}")
    }
}

/// One damaged part of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The artefact's name.
    pub name: String,
    /// The file in the cache.
    pub file: PathBuf,
    /// What is wrong: missing, or has another size or checksum.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}: {})", self.name, self.file.display(), self.reason)
    }
}

fn join(damage: &[Damage]) -> String {
    damage.iter().map(Damage::to_string).collect::<Vec<_>>().join(", ")
}

/// Gives an `io::Error` the verb and the path without which it helps nobody.
pub(crate) trait At<T> {
    fn at(self, verb: &'static str, path: &Path) -> crate::Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, verb: &'static str, path: &Path) -> crate::Result<T> {
        self.map_err(|source| BundleError::Io { verb, path: path.to_owned(), source })
    }
}
