//! Getting the Kubernetes components: what `up` needs before anything runs, and the verbs of `pilothouse bundle`.

mod keys;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bundle::node_image::{self, NodeImageOptions};
use bundle::{AgentSource, BuildOptions, Bundle, BundleError, Cache, Keys, PruneOptions, Pruned, Source, Version};
use nix::unistd::{AccessFlags, access};
use tenant_controlplane::version::KubernetesVersion;

use crate::options::{
    BuildArgs, BundleArgs, BundleCommand, CacheArgs, ExportArgs, ImportArgs, Output, PruneArgs, UpArgs,
};
use crate::progress::{Event, Progress};
use crate::screen::Screen;

/// The workspace this program was built in; the agent is built there when the bundle has none yet.
const WORKSPACE: &str = env!("CARGO_MANIFEST_DIR");

/// The node agent's artefact.
pub const AGENT: &str = node_protocol::program::AGENT;

/// The bundles of an instance: one of each Kubernetes version on offer.
#[derive(Clone)]
pub struct Bundles {
    /// The default version's. The host itself runs it, and the agent that machines fetch is from it.
    pub host: Arc<Bundle>,
    /// The other versions', newest first.
    pub others: Vec<(KubernetesVersion, Arc<Bundle>)>,
}

impl Bundles {
    /// All of them, the default version first.
    pub fn iter(&self) -> impl Iterator<Item = (KubernetesVersion, &Arc<Bundle>)> {
        let others = self.others.iter().map(|(version, bundle)| (*version, bundle));
        std::iter::once((KubernetesVersion::default(), &self.host)).chain(others)
    }

    /// The bundle of a version, if it is here.
    pub fn of(&self, version: KubernetesVersion) -> Option<&Arc<Bundle>> {
        self.iter().find(|(known, _)| *known == version).map(|(_, bundle)| bundle)
    }
}

/// Reads a Kubernetes version that there are pins for.
///
/// # Errors
/// [`BundleError::UnknownVersion`], which lists them.
pub fn version(text: &str) -> Result<KubernetesVersion> {
    Ok(KubernetesVersion::parse(Version::parse(text)?.as_str())?)
}

/// Opens or builds the bundles of the default version and of those in `wanted`; others are taken when they are in the cache.
pub async fn obtain(args: &UpArgs, wanted: &[KubernetesVersion], progress: &Progress) -> Result<Bundles> {
    let host = Arc::new(build_for(args, Version::default(), progress).await?);
    let cache = cache(args.cache.clone(), args.signing_key.clone());
    let mut others = Vec::new();
    for version in Version::known().into_iter().filter(|known| *known != Version::default()) {
        let known = &KubernetesVersion::parse(version.as_str())?;
        // Nodes trust one key: that of the host's bundle.
        let usable = |bundle: Bundle| bundle.statement(host.signer()).map(|_| bundle);
        match Bundle::open(&cache, version).and_then(usable) {
            Ok(bundle) => others.push((*known, Arc::new(bundle))),
            Err(_) if wanted.contains(known) => {
                others.push((*known, Arc::new(build_for(args, version, progress).await?)));
            }
            Err(BundleError::NotBuilt { .. }) => {}
            Err(error) => progress.note(format!("Kubernetes {known} is not offered: {error}")),
        }
    }
    Ok(Bundles { host, others })
}

/// Whether the cache has the bundles of the default version and of those in `wanted`: nothing is left to build, and no tool for it is needed.
pub fn are_complete(dir: &Path, wanted: &[KubernetesVersion]) -> bool {
    let cache = cache(Some(dir.to_owned()), None);
    let is_current = |text: String| Version::parse(&text).is_ok_and(|version| Bundle::is_current(&cache, version));
    let versions = wanted.iter().chain([&KubernetesVersion::default()]).map(ToString::to_string).collect::<Vec<_>>();
    versions.into_iter().all(is_current)
}

/// Whether the cache has the machines' Debian tree.
pub fn has_node_tree(dir: &Path) -> bool {
    node_image::locate(&NodeImageOptions::new(dir)).is_some()
}

/// Opens a bundle, or builds it. Either way its agent is the one that belongs to this program.
async fn build_for(args: &UpArgs, version: Version, progress: &Progress) -> Result<Bundle> {
    let title = format!("components of Kubernetes {version}");
    if let Some(bundle) = of_another_user(args.cache.as_deref(), version) {
        progress.note(format!("{title}: from another user's cache, as they are"));
        return Ok(bundle);
    }
    let report = |event: bundle::Progress| tell(progress, &event);
    let cache = cache(args.cache.clone(), args.signing_key.clone());
    let options = BuildOptions { source: source(&args.bundle_source)?, ..options(cache, version) };
    progress.step(&title, Bundle::build(&options, &report)).await
}

/// A bundle that lies ready where this user may read and not write: an instance on somebody else's host needs no root, and
/// builds nothing that root has built before.
fn of_another_user(cache: Option<&Path>, version: Version) -> Option<Bundle> {
    let bundle = cache.map_or_else(|| Bundle::locate(version), |dir| Bundle::open(&Cache::new(dir), version)).ok()?;
    let parts = bundle.path(bundle.artefact(AGENT)?);
    access(parts.parent()?, AccessFlags::W_OK).is_err().then_some(bundle)
}

/// The machines' Debian tree, built at the first need.
pub async fn node_tree(cache: Option<PathBuf>, progress: &Progress) -> Result<PathBuf> {
    let options = NodeImageOptions::new(cache.unwrap_or_else(Cache::default_dir));
    if let Some(root) = node_image::locate(&options) {
        return Ok(root);
    }
    let report = |event: bundle::Progress| tell(progress, &event);
    progress.step("Debian tree of machine containers", node_image::build(&options, &report)).await
}

/// The cache that was named, or the default one, with the key that signs in it.
fn cache(dir: Option<PathBuf>, signing_key: Option<PathBuf>) -> Cache {
    let keys = Keys::new(Keys::default_dir()).with_file(signing_key);
    Cache::with_keys(dir.unwrap_or_else(Cache::default_dir), keys)
}

fn options(cache: Cache, version: Version) -> BuildOptions {
    BuildOptions { agent: agent(&cache, version), cache, ..BuildOptions::new(version) }
}

/// Where the sources lie, and cargo, the agent is built from them; else the one in the cache is taken.
fn agent(cache: &Cache, version: Version) -> AgentSource {
    let workspace = Some(PathBuf::from(WORKSPACE)).filter(|dir| ours(dir) && bundle::cargo().is_some());
    let cached = Bundle::open(cache, version).and_then(|bundle| bundle.proven_program(AGENT));
    match (workspace, cached) {
        (None, Ok(path)) => AgentSource::Path(path),
        (workspace, _) => AgentSource::Auto { workspace },
    }
}

/// Whether sources lie there that belong to whoever owns this program. The path is from the machine on which it was built; on
/// another one anybody may have made that directory, and what is built is run by root.
fn ours(workspace: &Path) -> bool {
    let owner = |path: &Path| Some(fs::metadata(path).ok()?.uid());
    let Some(program) = std::env::current_exe().ok().and_then(|path| owner(&path)) else { return false };
    ["", "node-bootstrap", "node-bootstrap/Cargo.toml"].iter().all(|part| {
        let Ok(meta) = fs::metadata(workspace.join(part)) else { return false };
        meta.mode() & 0o002 == 0 && [0, program].contains(&meta.uid())
    })
}

fn source(word: &str) -> Result<Source> {
    let known = [Source::Auto, Source::Release, Source::Modules];
    known
        .into_iter()
        .find(|one| one.as_str() == word)
        .with_context(|| format!("unknown source \"{word}\": use auto, release or modules"))
}

/// What was in the cache already is not worth a line.
fn tell(progress: &Progress, event: &bundle::Progress) {
    match event {
        bundle::Progress::Done { cached: true, .. } | bundle::Progress::Space { .. } => {}
        bundle::Progress::Working { overall, .. } => {
            let share = overall.map(|overall| overall.share);
            progress.tell(&Event::Working { text: event.to_string(), share });
        }
        _ => progress.tell(&Event::Note { text: event.to_string() }),
    }
}

/// Shows what a verb of `pilothouse bundle` does, all of it.
fn show(screen: &Screen, event: &bundle::Progress) {
    match event {
        bundle::Progress::Working { overall, .. } => {
            screen.working(&event.to_string(), overall.map(|overall| overall.share));
        }
        _ => screen.line(&event.to_string()),
    }
}

/// `pilothouse bundle …`.
pub async fn bundle(command: BundleCommand) -> Result<ExitCode> {
    match command {
        BundleCommand::Build(args) => build(args).await,
        BundleCommand::List(args) => list(&args),
        BundleCommand::Verify(args) => verify(&args),
        BundleCommand::Export(args) => export(&args),
        BundleCommand::Import(args) => import(args).await,
        BundleCommand::Prune(args) => prune(args).await,
        BundleCommand::Key(args) => keys::show(&args),
        BundleCommand::Trust(args) => keys::trust(&args),
        BundleCommand::RotateKey(args) => keys::rotate(args).await,
        BundleCommand::NodeImage(args) => tree(args).await,
    }
}

fn print(output: Output, text: &str, json: &serde_json::Value) -> ExitCode {
    match output {
        Output::Text => println!("{text}"),
        Output::Json => println!("{json}"),
    }
    ExitCode::SUCCESS
}

fn open(args: &BundleArgs) -> Result<Bundle> {
    let cache = cache(args.at.cache.clone(), None);
    Ok(Bundle::open(&cache, Version::parse(&args.version)?)?)
}

async fn build(args: BuildArgs) -> Result<ExitCode> {
    let BuildArgs { bundle: args, signing_key } = args;
    let (version, source) = (Version::parse(&args.version)?, source(&args.source)?);
    let (cache, screen) = (cache(args.at.cache, signing_key), Screen::new());
    let report = |event: bundle::Progress| show(&screen, &event);
    let made = Bundle::build(&BuildOptions { source, ..options(cache, version) }, &report).await?;
    let dir = made.cache().dir();
    let text = format!("{} in {}", made.id(), dir.display());
    let json = serde_json::json!({ "id": made.id(), "cache": dir, "size": made.manifest().size() });
    Ok(print(args.at.output, &text, &json))
}

fn list(args: &CacheArgs) -> Result<ExitCode> {
    let cache = args.cache.clone().unwrap_or_else(Cache::default_dir);
    let all = bundle::list(&cache)?;
    if args.output == Output::Json {
        let items: Vec<_> = all.iter().map(|one| serde_json::json!({ "id": one.id, "kubernetes": one.kubernetes, "current": one.current, "parts": one.parts, "size": one.size })).collect();
        println!("{}", serde_json::json!({ "items": items }));
        return Ok(ExitCode::SUCCESS);
    }
    if all.is_empty() {
        println!("No bundle in {}. Build one: pilothouse bundle build", cache.display());
    }
    for one in all {
        let mark = if one.current { '*' } else { ' ' };
        println!("{mark} {:<24} {:>3} parts {:>6} MiB", one.id, one.parts, one.size >> 20);
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(args: &BundleArgs) -> Result<ExitCode> {
    let bundle = open(args)?;
    bundle.verify(&|event| eprintln!("{event}"))?;
    let text = format!("{}: every file is as {} signed it", bundle.id(), bundle.signer());
    Ok(print(
        args.at.output,
        &text,
        &serde_json::json!({ "id": bundle.id(), "signed_by": bundle.signer(), "ok": true }),
    ))
}

fn export(args: &ExportArgs) -> Result<ExitCode> {
    let bundle = open(&args.bundle)?;
    if args.file.exists() {
        bail!("{} exists already: remove it or choose another name", args.file.display());
    }
    bundle.export(&args.file, &|event| eprintln!("{event}"))?;
    let text = format!("{} written to {}", bundle.id(), args.file.display());
    Ok(print(args.bundle.at.output, &text, &serde_json::json!({ "id": bundle.id(), "file": args.file })))
}

async fn import(args: ImportArgs) -> Result<ExitCode> {
    let cache = cache(args.at.cache, None);
    let bundle = Bundle::import(&cache, &args.file, &args.trust, &|event| eprintln!("{event}")).await?;
    let text = format!("{} in {}", bundle.id(), cache.dir().display());
    Ok(print(args.at.output, &text, &serde_json::json!({ "id": bundle.id(), "cache": cache.dir() })))
}

async fn prune(args: PruneArgs) -> Result<ExitCode> {
    let cache = args.at.cache.unwrap_or_else(Cache::default_dir);
    let options = PruneOptions { dry_run: !args.yes, ..PruneOptions::default() };
    let pruned = bundle::prune(&cache, &options, &|event| eprintln!("{event}")).await?;
    let removed: Vec<_> =
        pruned.removed.iter().map(|one| serde_json::json!({ "name": one.name, "size": one.size })).collect();
    let kept: Vec<_> =
        pruned.kept.iter().map(|(id, reason)| serde_json::json!({ "id": id, "reason": reason })).collect();
    let json = serde_json::json!({ "dry_run": !args.yes, "size": pruned.size(), "removed": removed, "kept": kept });
    Ok(print(args.at.output, &pruning(&pruned, args.yes), &json))
}

/// What a person reads after `prune`.
fn pruning(pruned: &Pruned, done: bool) -> String {
    let (count, mib) = (pruned.removed.len(), pruned.size() >> 20);
    let things = if count == 1 { "thing" } else { "things" };
    let mut text = match (count, done) {
        (0, _) => "Nothing to remove.".to_owned(),
        (_, true) => format!("Removed {count} {things}, {mib} MiB."),
        (_, false) => {
            format!(
                "Would remove {count} {things}, {mib} MiB; nothing was changed. To do it: pilothouse bundle prune --yes"
            )
        }
    };
    for (id, reason) in &pruned.kept {
        text.push_str(&format!("\nKept {id}: {reason}"));
    }
    text
}

async fn tree(args: CacheArgs) -> Result<ExitCode> {
    let options = NodeImageOptions::new(args.cache.unwrap_or_else(Cache::default_dir));
    let screen = Screen::new();
    let root = node_image::build(&options, &|event| show(&screen, &event)).await?;
    Ok(print(args.output, &root.display().to_string(), &serde_json::json!({ "root": root })))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The domain's list and the bundles' pins.
    #[test]
    fn every_version_with_pins_has_manifests() {
        let pinned: Vec<KubernetesVersion> =
            Version::known().iter().map(|known| version(known.as_str()).unwrap()).collect();
        assert_eq!(pinned, KubernetesVersion::known());
        assert!(version("1.30.0").unwrap_err().to_string().contains("1.36.3, 1.35.4"));
    }

    #[test]
    fn pruning_says_whether_anything_was_changed() {
        let item = bundle::PrunedItem { name: "sha256/ab".to_owned(), size: 3 << 20 };
        let pruned = Pruned { removed: vec![item], kept: vec![("1.36.3-ab".to_owned(), "in use")] };
        let told = pruning(&pruned, false);
        assert!(told.contains("Would remove 1 thing, 3 MiB; nothing was changed"), "{told}");
        assert!(told.ends_with("Kept 1.36.3-ab: in use"), "{told}");
        assert!(pruning(&pruned, true).starts_with("Removed 1 thing, 3 MiB."));
        assert_eq!(pruning(&Pruned::default(), false), "Nothing to remove.");
    }
}
