//! Builds a bundle: programs from a source, images from programs, the agent, and the manifest over all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use crate::bundle::Bundle;
use crate::cache::{Cache, DATA, Stored, key};
use crate::catalog::{Catalog, ImageRecipe};
use crate::effort::Estimate;
use crate::error::At;
use crate::manifest::{Artefact, Kind, Manifest};
use crate::modules::{Go, Work};
use crate::oci::Image;
use crate::release::{Checksums, Order};
use crate::source::Plan;
use crate::workdir::Workdir;
use crate::{
    AgentSource, BundleError, FreeSpace, Progress, ReleaseOptions, Report, Result, Source, Version, agent, disk,
    free_space, images, oci, release, source,
};

/// Bumped when the way of packing changes, so that earlier images are not taken for new ones.
const PACKING: &str = "1";

/// What to build, from where, into which cache.
#[derive(Clone)]
pub struct BuildOptions {
    /// Kubernetes version.
    pub version: Version,
    /// Cache; made if missing.
    pub cache: Cache,
    /// Where the programs come from.
    pub source: Source,
    /// Where the agent comes from.
    pub agent: AgentSource,
    /// For the source `release`.
    pub release: ReleaseOptions,
    /// The Go toolchain for the source `modules`; `None` looks on `PATH`.
    pub go: Option<PathBuf>,
    /// In it a fresh directory is made to build in: `$TMPDIR`, else `/var/tmp`.
    pub build_dir: PathBuf,
    /// How free disk space is measured.
    pub free_space: FreeSpace,
}

impl BuildOptions {
    /// The defaults for a version: default cache, automatic source, agent beside this program.
    pub fn new(version: Version) -> BuildOptions {
        BuildOptions {
            version,
            cache: Cache::default(),
            source: Source::Auto,
            agent: AgentSource::default(),
            release: ReleaseOptions::from_env(),
            go: None,
            build_dir: Workdir::default_parent(),
            free_space: free_space(),
        }
    }
}

/// One build under way: what was asked, the table, the store and where progress goes.
pub(crate) struct Job<'a> {
    pub(crate) opts: &'a BuildOptions,
    pub(crate) catalog: Catalog,
    pub(crate) cache: Cache,
    pub(crate) report: Report<'a>,
    pub(crate) estimate: &'a Estimate,
    /// Made when something is built; see [`Job::workdir`].
    workdir: OnceLock<Workdir>,
}

impl Bundle {
    /// Builds the bundle and makes it the current one of its version. What is in the cache already is checked by
    /// checksum and kept; what is damaged or missing is made again. Dropping the future stops all of it, child
    /// processes included; the next call goes on from there.
    ///
    /// # Errors
    /// Any [`BundleError`]; nothing current is replaced then.
    pub async fn build(opts: &BuildOptions, report: Report<'_>) -> Result<Bundle> {
        let begun = Instant::now();
        let (catalog, cache) = (Catalog::load(opts.version)?, opts.cache.clone());
        let estimate = Estimate::new()?;
        let report = |event| report(estimate.annotate(event));
        let (report, estimate): (Report<'_>, _) = (&report, &estimate);
        let job = Job { opts, catalog, cache, report, estimate, workdir: OnceLock::new() };
        let _lock = job.cache.lock(report).await?;
        // Results count as signed from the first one on: a change of keys must find them.
        job.cache.keys().note_cache(job.cache.dir())?;
        agent::announce(&job);
        let mut artefacts = job.parts(source::choose(&job).await?).await?;
        artefacts.extend(agent::add(&job).await?);
        let manifest = Manifest::new(opts.version.as_str(), artefacts);
        let bundle = Bundle::record(&job.cache, manifest, Some(&job.recipe()?))?;
        let (parts, size) = (bundle.artefacts().len(), bundle.manifest().size());
        report(Progress::Finished { what: format!("bundle {}", bundle.id()), parts, size, elapsed: begun.elapsed() });
        Ok(bundle)
    }
}

impl Job<'_> {
    /// Programs and images by a plan.
    async fn parts(&self, plan: Plan) -> Result<Vec<Artefact>> {
        if let Plan::Kept(parts) = plan {
            parts.iter().for_each(|part| self.cached(part));
            return Ok(parts);
        }
        let (busybox, version) = images::find_busybox().await?;
        let mut artefacts = match plan {
            Plan::Kept(parts) => parts,
            Plan::Modules(go) => self.build(&go).await?,
            Plan::Release(table, go) => self.fetch(&table, go.as_ref()).await?,
        };
        let mut packed = Vec::new();
        for recipe in &self.catalog.images {
            packed.push(self.component(recipe, &artefacts).await?);
        }
        packed.push(self.busybox(&busybox, &version).await?);
        artefacts.append(&mut packed);
        Ok(artefacts)
    }

    async fn build(&self, go: &Go) -> Result<Vec<Artefact>> {
        let work = Work::look(self, go, self.catalog.programs().collect()).await?;
        work.prepare(self, go, 0).await?;
        work.announce(self);
        work.make(self, go).await
    }

    /// Checks everything, then fetches, then builds what is not pinned: a wrong checksum shows before minutes of compiling.
    async fn fetch(&self, table: &Checksums, go: Option<&Go>) -> Result<Vec<Artefact>> {
        let order = Order::look(self, table).await?;
        if !order.is_complete() {
            // Whether there is a place to work in shows before anything is fetched.
            self.workdir()?;
        }
        let room = if order.is_complete() { 0 } else { release::ROOM };
        let work = match go {
            Some(go) => {
                let work = Work::look(self, go, release::unpinned(self, table)).await?;
                work.prepare(self, go, room).await?;
                work.announce(self);
                Some((work, go))
            }
            None => {
                let archives = if order.is_complete() { 0 } else { release::ARCHIVES };
                let wants = [(self.cache.dir().to_owned(), room), (self.opts.build_dir.clone(), archives)];
                disk::check(&wants, &self.opts.free_space, self.report)?;
                None
            }
        };
        order.announce(self);
        let mut artefacts = order.fetch(self).await?;
        if let Some((work, go)) = work {
            artefacts.append(&mut work.make(self, go).await?);
        }
        Ok(artefacts)
    }

    /// Says what is fetched and what is built.
    pub(crate) fn tell_split(&self, table: &Checksums) {
        let list = |pinned: bool| {
            let names = self.catalog.programs().map(|(_, program)| program.name.as_str());
            names.filter(|name| table.pin(name).is_some() == pinned).collect::<Vec<_>>().join(", ")
        };
        let built = Some(list(false)).filter(|names| !names.is_empty());
        let built = built.map_or_else(String::new, |names| format!("; built here: {names}"));
        (self.report)(Progress::Note(format!("official: {}{built}", list(true))));
    }

    /// See [`Catalog::recipe`].
    pub(crate) fn recipe(&self) -> Result<String> {
        self.catalog.recipe(PACKING)
    }

    /// Hashing hundreds of megabytes must not hold up the runtime.
    pub(crate) async fn done(&self, key: &str) -> Result<Option<Stored>> {
        let (cache, key) = (self.cache.clone(), key.to_owned());
        blocking(move || Ok(cache.done(&key))).await
    }

    /// Where this build works.
    pub(crate) fn workdir(&self) -> Result<&Workdir> {
        if let Some(made) = self.workdir.get() {
            return Ok(made);
        }
        let made = Workdir::make(&self.opts.build_dir)?;
        Ok(self.workdir.get_or_init(|| made))
    }

    /// [`Cache::copy_in`], off the runtime.
    pub(crate) async fn copy_in(&self, from: &Path, mode: u32) -> Result<Stored> {
        let (cache, from) = (self.cache.clone(), from.to_owned());
        blocking(move || cache.copy_in(&from, mode)).await
    }

    /// Reports a part that was there already.
    pub(crate) fn cached(&self, part: &Artefact) {
        let name = if part.kind == Kind::Image { format!("image {}", part.name) } else { part.name.clone() };
        (self.report)(Progress::Done { name, size: part.size, elapsed: Default::default(), cached: true });
    }

    /// Reports a part that was made just now.
    pub(crate) fn done_report(&self, name: &str, stored: &Stored, begun: Instant) {
        let (name, size, elapsed) = (name.to_owned(), stored.size, begun.elapsed());
        (self.report)(Progress::Done { name, size, elapsed, cached: false });
    }

    async fn component(&self, recipe: &ImageRecipe, programs: &[Artefact]) -> Result<Artefact> {
        let find = |name: &String| {
            let missing =
                || BundleError::NoArtefact { bundle: recipe.name.clone(), kind: "binary", name: name.clone() };
            programs.iter().find(|artefact| artefact.name == *name).ok_or_else(missing)
        };
        let parts = recipe.files.iter().map(find).collect::<Result<Vec<&Artefact>>>()?;
        let version = parts.first().map(|part| part.version.clone()).unwrap_or_default();
        let digests = parts.iter().map(|part| part.sha256.as_str()).collect::<Vec<_>>().join(",");
        let image = images::component(recipe, &self.cache, &parts);
        self.pack((&recipe.name, &version), image, ("bundle".to_owned(), digests)).await
    }

    async fn busybox(&self, program: &Path, version: &str) -> Result<Artefact> {
        let digest = crate::cache::digest(program)?.sha256;
        let source = format!("file:{}", program.display());
        self.pack(("busybox", version), images::busybox(version, program, &digest), (source, digest)).await
    }

    async fn pack(
        &self,
        (name, version): (&str, &str),
        image: Image,
        (source, inputs): (String, String),
    ) -> Result<Artefact> {
        let reference = image.reference.clone();
        let key = key(&["image", PACKING, env!("CARGO_PKG_VERSION"), &reference, &image.user, &inputs]);
        let label = format!("image {name}");
        let finish = |stored: &Stored| Artefact {
            image: Some(reference.clone()),
            ..Artefact::stored(name, Kind::Image, version, source.clone(), stored)
        };
        if let Some(stored) = self.done(&key).await? {
            let part = finish(&stored);
            self.cached(&part);
            return Ok(part);
        }
        let begun = Instant::now();
        let (cache, workdir) = (self.cache.clone(), self.workdir()?);
        let (out, layer) = (workdir.file(), workdir.file());
        let stored = blocking(move || {
            oci::write(&image, &out, &layer).map_err(|source| BundleError::Io {
                verb: "write",
                path: out.clone(),
                source,
            })?;
            let stored = cache.copy_in(&out, DATA)?;
            fs::remove_file(&out).at("remove", &out)?;
            Ok(stored)
        })
        .await?;
        self.cache.mark_done(&key, &stored)?;
        self.done_report(&label, &stored, begun);
        Ok(finish(&stored))
    }
}

/// The recipe of a manifest from elsewhere, if it holds what the catalog of its version asks for.
pub(crate) fn recipe_of(manifest: &Manifest) -> Option<String> {
    let catalog = Catalog::load(Version::parse(&manifest.kubernetes).ok()?).ok()?;
    if catalog.is_in(manifest) { catalog.recipe(PACKING).ok() } else { None }
}

impl Artefact {
    /// What the manifest says of stored bytes.
    pub(crate) fn stored(name: &str, kind: Kind, version: &str, source: String, stored: &Stored) -> Artefact {
        Artefact {
            name: name.to_owned(),
            kind,
            version: version.to_owned(),
            sha256: stored.sha256.clone(),
            size: stored.size,
            source,
            file: format!("sha256/{}", stored.sha256),
            image: None,
        }
    }
}

/// Runs file work on a thread where waiting is allowed.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let source = std::io::Error::other(error);
        Err(BundleError::Io { verb: "work on", path: PathBuf::from("the cache"), source })
    })
}
