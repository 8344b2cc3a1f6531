//! Which source the bundle's programs come from.

use std::fmt;
use std::str::FromStr;

use crate::build::{Job, blocking};
use crate::error::SignatureFault::Missing;
use crate::modules::{Go, Work};
use crate::release::{Checksums, Order, unpinned};
use crate::{Artefact, Bundle, BundleError, Kind, Progress, Result};

/// Where the programs of a bundle come from. The result has the same shape either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// What the cache has, if that is complete: nothing is asked then. Else `release` if checksums are pinned and the
    /// server answers within 2 s; else `modules` if there is a Go toolchain.
    #[default]
    Auto,
    /// Official release artefacts by pinned checksum, for amd64. What has no pinned artefact is built as in `modules`.
    Release,
    /// Built here from pinned Go modules.
    Modules,
}

impl Source {
    /// `auto`, `release` or `modules`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Source::Auto => "auto",
            Source::Release => "release",
            Source::Modules => "modules",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Source {
    type Err = BundleError;
    fn from_str(text: &str) -> Result<Self> {
        [Source::Auto, Source::Release, Source::Modules]
            .into_iter()
            .find(|source| source.as_str() == text)
            .ok_or_else(|| BundleError::UnknownSource { asked: text.to_owned() })
    }
}

/// The decision, with what it needs.
pub(crate) enum Plan {
    /// Take the current bundle's programs and images, all proven by checksum.
    Kept(Vec<Artefact>),
    /// Fetch by this table, and build with this toolchain what is not in it.
    Release(Checksums, Option<Go>),
    /// Build with this toolchain.
    Modules(Go),
}

impl Plan {
    fn name(&self) -> &'static str {
        match self {
            Plan::Kept(_) => "cache",
            Plan::Release(..) => Source::Release.as_str(),
            Plan::Modules(_) => Source::Modules.as_str(),
        }
    }
}

/// Decides, and reports what and why.
pub(crate) async fn choose(job: &Job<'_>) -> Result<Plan> {
    let asked = || "as asked".to_owned();
    let (plan, reason) = match job.opts.source {
        Source::Release => {
            let table = Checksums::load(job.opts.version, &job.opts.release)?;
            let go = builder(job, &table, &go(job).await)?;
            (Plan::Release(table, go), asked())
        }
        Source::Modules => (Plan::Modules(go(job).await?), asked()),
        Source::Auto => automatic(job).await?,
    };
    (job.report)(Progress::Source { source: plan.name(), reason });
    if let Plan::Release(table, _) = &plan {
        job.tell_split(table);
    }
    Ok(plan)
}

/// What is complete in the cache needs neither network nor toolchain, and is asked for first.
async fn automatic(job: &Job<'_>) -> Result<(Plan, String)> {
    let disbelief = disbelief(job);
    if let Some(error) = &disbelief {
        (job.report)(Progress::Note(error.to_string()));
    }
    if let Some((plan, id)) = kept(job, true).await? {
        return Ok((plan, format!("{id} is complete")));
    }
    let go = go(job).await;
    if let Ok(go) = &go
        && Work::look(job, go, job.catalog.programs().collect()).await?.is_complete()
    {
        return Ok((Plan::Modules(go.clone()), "everything was built here before".to_owned()));
    }
    let (release, modules) = match (ready(job, &go).await, go) {
        (Ok(found), _) => return Ok(found),
        (Err(release), Ok(go)) => return Ok((Plan::Modules(go), format!("release: {release}"))),
        (Err(release), Err(modules)) => (release.to_string(), modules.to_string()),
    };
    match kept(job, false).await? {
        Some((plan, id)) => Ok((plan, format!("{id} has the right versions, and nothing newer can be had: {release}"))),
        // There is one, and nothing else can be had: what to do about it helps more, unless it is to be made again.
        None => {
            let helps = disbelief.filter(|error| !matches!(error, BundleError::Signature { fault: Missing, .. }));
            Err(helps.unwrap_or(BundleError::NoSource { release, modules }))
        }
    }
}

/// The release, if it is in the cache or its servers answer.
async fn ready(job: &Job<'_>, go: &Result<Go>) -> Result<(Plan, String)> {
    let table = Checksums::load(job.opts.version, &job.opts.release)?;
    let order = Order::look(job, &table).await?;
    let complete = order.is_complete();
    if !complete {
        order.answers().await?;
    }
    let go = builder(job, &table, go)?;
    let reason = if complete { "all of it was fetched before" } else { "checksums are pinned and the server answers" };
    Ok((Plan::Release(table, go), reason.to_owned()))
}

/// The toolchain for what the table does not pin; none is needed if it pins everything.
fn builder(job: &Job<'_>, table: &Checksums, go: &Result<Go>) -> Result<Option<Go>> {
    let names: Vec<_> = unpinned(job, table).iter().map(|(_, program)| program.name.as_str()).collect();
    match go {
        _ if names.is_empty() => Ok(None),
        Ok(go) => Ok(Some(go.clone())),
        Err(error) => Err(BundleError::Unpinned { names: names.join(", "), reason: error.to_string() }),
    }
}

/// A signed bundle, the current one first, that has what the catalog asks for and of which every byte is right. `exact`: it
/// was also made by this very recipe. A newer Go toolchain alone is no reason to build again; the source `modules` does.
async fn kept(job: &Job<'_>, exact: bool) -> Result<Option<(Plan, String)>> {
    let recipe = Some(job.recipe()?);
    let mut fitting = Bundle::believed(&job.cache, job.opts.version)?;
    fitting.retain(|bundle| job.catalog.is_in(bundle.manifest()) && (!exact || bundle.recipe() == recipe));
    blocking(move || {
        let parts =
            |bundle: &Bundle| bundle.artefacts().iter().filter(|part| part.kind != Kind::Agent).cloned().collect();
        let whole = fitting.into_iter().find(|bundle| {
            let parts: Vec<Artefact> = parts(bundle);
            parts.iter().all(|part| bundle.is_whole(part))
        });
        Ok(whole.map(|bundle| (Plan::Kept(parts(&bundle)), bundle.id().to_owned())))
    })
    .await
}

/// Says why the current bundle is not believed, if it is not.
fn disbelief(job: &Job<'_>) -> Option<BundleError> {
    Bundle::open(&job.cache, job.opts.version).err().filter(|error| matches!(error, BundleError::Signature { .. }))
}

async fn go(job: &Job<'_>) -> Result<Go> {
    Go::find(job.opts.go.as_deref()).await
}
