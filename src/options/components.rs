//! The words of `pilothouse bundle`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Output;

/// `pilothouse bundle …`.
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Fetch or build every component of one Kubernetes version
    Build(BuildArgs),
    /// List the bundles in the cache
    List(CacheArgs),
    /// Verify the signature and the checksums of all files
    Verify(BundleArgs),
    /// Write one bundle to a file, for a machine without internet
    Export(ExportArgs),
    /// Read a bundle from a file that `export` wrote
    Import(ImportArgs),
    /// Remove what no current bundle needs (dry run without --yes)
    Prune(PruneArgs),
    /// Print the public key that signs bundles here, and those trusted besides
    Key(KeyArgs),
    /// Trust what a public key signed: a bundle of another machine
    Trust(TrustArgs),
    /// Sign with a new key from now on; nodes learn it at the next `up`
    RotateKey(RotateKeyArgs),
    /// Build the Debian tree that machine containers and test machines start from
    NodeImage(CacheArgs),
}

/// Where the bundle cache is.
#[derive(Debug, Clone, Args)]
pub struct CacheArgs {
    /// Directory of the bundle cache [default: /var/cache/pilothouse]
    #[arg(long, env = "PILOTHOUSE_CACHE")]
    pub cache: Option<PathBuf>,
    /// Output format
    #[arg(long, default_value = "text")]
    pub output: Output,
}

/// Which bundle.
#[derive(Debug, Clone, Args)]
pub struct BundleArgs {
    #[command(flatten)]
    pub at: CacheArgs,
    /// Kubernetes version
    #[arg(long, visible_alias = "kubernetes-version", default_value = "1.36.3")]
    pub version: String,
    /// auto, release (official files) or modules (built from Go modules)
    #[arg(long, default_value = "auto", env = "PILOTHOUSE_BUNDLE_SOURCE")]
    pub source: String,
}

/// `pilothouse bundle build`.
#[derive(Debug, Clone, Args)]
pub struct BuildArgs {
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// File with the Ed25519 key (PKCS#8, PEM) that signs bundles; kept for every later build [default: one made in
    /// /etc/pilothouse/signing]
    #[arg(long, value_name = "FILE", env = "PILOTHOUSE_SIGNING_KEY")]
    pub signing_key: Option<PathBuf>,
}

/// `pilothouse bundle key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Output format
    #[arg(long, default_value = "text")]
    pub output: Output,
}

/// `pilothouse bundle trust`.
#[derive(Debug, Args)]
pub struct TrustArgs {
    /// The public key, as `pilothouse bundle key` prints it on the machine that has it
    pub key: bundle::PublicKey,
    /// No longer trust it
    #[arg(long)]
    pub remove: bool,
}

/// `pilothouse bundle rotate-key`.
#[derive(Debug, Args)]
pub struct RotateKeyArgs {
    /// File with the new Ed25519 key (PKCS#8, PEM) [default: a new one is made]
    #[arg(long, value_name = "FILE")]
    pub signing_key: Option<PathBuf>,
    /// Output format
    #[arg(long, default_value = "text")]
    pub output: Output,
}

/// `pilothouse bundle prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    pub at: CacheArgs,
    /// Remove it; without this nothing is changed
    #[arg(long)]
    pub yes: bool,
}

/// `pilothouse bundle export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// The file to write
    pub file: PathBuf,
}

/// `pilothouse bundle import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    #[command(flatten)]
    pub at: CacheArgs,
    /// Public key of whoever exported it, trusted for this file alone; may be repeated
    #[arg(long, value_name = "KEY")]
    pub trust: Vec<bundle::PublicKey>,
    /// The file to read
    pub file: PathBuf,
}
