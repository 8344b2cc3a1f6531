//! Finds our own node agent: one static program that runs on machines we know nothing about.

use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::process::Command;

use crate::build::Job;
use crate::cache::PROGRAM;
use crate::command::{Step, find, run};
use crate::error::At;
use crate::manifest::{Artefact, Kind};
use crate::{BundleError, Progress, Result, elf};

/// The agent's name, as a file and in the bundle.
pub(crate) const NAME: &str = "pilothouse-node";

/// Where the agent comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentSource {
    /// Beside this program if it is static there; else built in this workspace, if one is named.
    Auto {
        /// Directory of the workspace that has the agent's crate.
        workspace: Option<PathBuf>,
    },
    /// This file. It must be static.
    Path(PathBuf),
    /// A bundle without the agent; it can be put in later by [`crate::Bundle::with_agent`].
    Absent,
}

impl Default for AgentSource {
    fn default() -> Self {
        AgentSource::Auto { workspace: None }
    }
}

/// The agent in the store, or `None` if the bundle is to have none.
pub(crate) async fn add(job: &Job<'_>) -> Result<Option<Artefact>> {
    let path = match &job.opts.agent {
        AgentSource::Absent => return Ok(None),
        AgentSource::Path(path) => path.clone(),
        AgentSource::Auto { workspace } => match (beside(), workspace) {
            (Some(path), _) => path,
            (None, Some(workspace)) => compile(job, workspace).await?,
            (None, None) => return Err(BundleError::NoAgent),
        },
    };
    let begun = Instant::now();
    check(&path)?;
    let stored = job.copy_in(&path, PROGRAM).await?;
    // One of the cache is named by what was proven; it must not have become another since.
    let proven = path.file_name().filter(|_| path.starts_with(job.cache.blobs()));
    if let Some(name) = proven.filter(|name| *name != stored.sha256.as_str()) {
        let (expected, actual) = (name.to_string_lossy().into_owned(), stored.sha256);
        return Err(BundleError::Checksum { name: NAME.to_owned(), url: path.display().to_string(), expected, actual });
    }
    job.done_report(NAME, &stored, begun);
    Ok(Some(artefact(&stored)))
}

/// What the manifest says of the agent. Its version is this workspace's.
pub(crate) fn artefact(stored: &crate::cache::Stored) -> Artefact {
    Artefact::stored(NAME, Kind::Agent, env!("CARGO_PKG_VERSION"), "bundle".to_owned(), stored)
}

/// Refuses an agent that would only run here.
pub(crate) fn check(path: &Path) -> Result<()> {
    if elf::is_static(path).at("read", path)? {
        return Ok(());
    }
    let hint = "build it with RUSTFLAGS=-Ctarget-feature=+crt-static and an explicit --target";
    Err(BundleError::NotStatic { path: path.to_owned(), hint })
}

/// A development build beside us is linked dynamically and does not count.
fn beside() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.parent()?.join(NAME);
    elf::is_static(&path).is_ok_and(|is| is).then_some(path)
}

/// Cargo: as `CARGO` names it, on `PATH`, or where rustup puts it, which a shell without a login does not look at.
pub fn cargo() -> Option<PathBuf> {
    let named = std::env::var_os("CARGO").map(PathBuf::from);
    let usual =
        || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo/bin/cargo")).filter(|path| path.is_file());
    named.or_else(|| find("cargo")).or_else(usual)
}

/// Tells the build's estimate that the agent will be compiled, if it will.
pub(crate) fn announce(job: &Job<'_>) {
    if matches!(&job.opts.agent, AgentSource::Auto { workspace: Some(_) }) && beside().is_none() {
        job.estimate.plan_builds([NAME]);
    }
}

async fn compile(job: &Job<'_>, workspace: &Path) -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let targets = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let out = workspace.join(targets).join(&target).join("agent");
    (job.report)(Progress::Started { name: NAME.to_owned(), action: "build" });
    let mut command = Command::new(cargo().unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workspace)
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.args([
        "build",
        "--locked",
        "--profile",
        "agent",
        "-p",
        "node-bootstrap",
        "--bin",
        NAME,
        "--target",
        &target,
    ]);
    let mut count = 0;
    let mut describe = |line: &str| {
        let text = line.trim_start();
        count += u32::from(text.starts_with("Compiling"));
        let is_step = ["Compiling", "Downloaded", "Blocking"].iter().any(|word| text.starts_with(word));
        is_step.then(|| Step { text: text.to_owned(), count })
    };
    run(command, NAME, job.report, &mut describe).await?;
    Ok(out.join(NAME))
}
