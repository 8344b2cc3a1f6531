//! Which source the bundle's programs come from.

use std::fmt;
use std::str::FromStr;

use crate::build::Job;
use crate::modules::Go;
use crate::release::Checksums;
use crate::{BundleError, Progress, Result};

/// Where the programs of a bundle come from. The result has the same shape either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// `release` if every checksum is pinned and the server answers within 2 s; else `modules` if there is a Go toolchain.
    #[default]
    Auto,
    /// Official release artefacts by pinned checksum. Needs a checksum file: none is shipped yet, see [`crate::ReleaseOptions`].
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
    /// Fetch by this table.
    Release(Checksums),
    /// Build with this toolchain.
    Modules(Go),
}

/// Decides, and reports what and why.
pub(crate) async fn choose(job: &Job<'_>) -> Result<Plan> {
    let asked = || "as asked".to_owned();
    let (plan, reason) = match job.opts.source {
        Source::Release => (Plan::Release(Checksums::load(job)?), asked()),
        Source::Modules => (Plan::Modules(go(job).await?), asked()),
        Source::Auto => automatic(job).await?,
    };
    let source = match plan {
        Plan::Release(_) => Source::Release.as_str(),
        Plan::Modules(_) => Source::Modules.as_str(),
    };
    (job.report)(Progress::Source { source, reason });
    Ok(plan)
}

async fn automatic(job: &Job<'_>) -> Result<(Plan, String)> {
    let release = match ready(job).await {
        Ok(table) => return Ok((Plan::Release(table), "every checksum is pinned and the server answers".to_owned())),
        Err(error) => error.to_string(),
    };
    match go(job).await {
        Ok(go) => Ok((Plan::Modules(go), format!("release: {release}"))),
        Err(error) => Err(BundleError::NoSource { release, modules: error.to_string() }),
    }
}

async fn ready(job: &Job<'_>) -> Result<Checksums> {
    let table = Checksums::load(job)?;
    table.answers().await?;
    Ok(table)
}

async fn go(job: &Job<'_>) -> Result<Go> {
    Go::find(job.opts.go.as_deref(), &job.cache.work()).await
}
