//! The **bundle**: every component of one Kubernetes version, pinned, by checksum, usable without internet.
//!
//! A bundle is a list ([`Manifest`]) over a content-addressed store ([`Cache`]):
//!
//! ```text
//! <cache>/sha256/<hex>                          the bytes: binaries (mode 0555) and OCI image archives (mode 0444)
//! <cache>/bundles/<version>-<hash>/bundle.json  what makes up a bundle: name, kind, version, sha256, size, source
//! <cache>/bundles/<version>-<hash>/bundle.json.sig  who says so: signatures of that list
//! <cache>/bundles/<version>-<hash>/recipe       what it was made by
//! <cache>/bundles/<version>                     symbolic link to the current one, replaced atomically
//! <cache>/node-image/<hash>/root                a Debian tree for machines, see [`node_image`]
//! <cache>/{done,downloads,tmp,work}             what makes building resumable; may be deleted at any time
//! ```
//!
//! The bytes come from one of two sources with the same result: official release artefacts by pinned checksum
//! ([`Source::Release`], amd64; programs without a pinned artefact are built), or the same programs built here from
//! pinned Go modules ([`Source::Modules`]). [`Source::Auto`] takes what the cache has, or else picks one, and says which
//! and why. The agent and the busybox image are made locally.
//!
//! What is executed is proven: a list counts only with the signature of a trusted key ([`Keys`], outside the cache),
//! [`Bundle::build`] reads every byte before it hands a bundle out, and a cache that another user may write to is refused.
//!
//! Deliberately not here: starting any of it, talking to a registry, and command-line parsing. Building is slow, so
//! it reports through a callback ([`Progress`]) and stops, with its child processes, when its future is dropped.

mod agent;
mod archive;
mod build;
mod bundle;
mod cache;
mod catalog;
mod command;
mod disk;
mod effort;
mod elf;
mod error;
mod hold;
mod images;
mod keys;
mod manifest;
mod modules;
pub mod node_image;
mod oci;
mod progress;
mod prune;
mod release;
mod rotate;
mod signature;
mod source;
mod trust;
mod version;
mod workdir;

pub use agent::{AgentSource, cargo};
pub use build::BuildOptions;
pub use bundle::{Bundle, Statement, Summary, list};
pub use cache::Cache;
pub use disk::{FreeSpace, free_space};
pub use effort::Overall;
pub use elf::is_static;
pub use error::{BundleError, Damage, SignatureFault};
pub use keys::Keys;
pub use manifest::{Artefact, Kind, Manifest};
pub use progress::{Progress, Report};
pub use prune::{PruneOptions, Pruned, PrunedItem, prune};
pub use release::ReleaseOptions;
pub use rotate::rotate;
pub use signature::{PublicKey, Signature, Succession};
pub use source::Source;
pub use version::Version;

/// Shorthand for what nearly every function here returns.
pub type Result<T, E = BundleError> = std::result::Result<T, E>;
