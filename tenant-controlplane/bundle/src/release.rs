//! The `release` source: official artefacts over HTTP, accepted only by pinned checksum.
//!
//! The pins are a TOML file named by the options. **None is shipped yet**: official checksums have to be taken from
//! the projects themselves, which needs internet. The file looks like this; every program of the catalogue
//! must be in it:
//!
//! ```toml
//! kubernetes = "1.36.3"
//! base = "https://mirror.example.org"          # for relative addresses; the option `base_url` replaces it
//!
//! [artefact.kubelet]
//! url = "kubernetes/v1.36.3/bin/linux/amd64/kubelet"
//! sha256 = "…"                                 # of what is fetched
//!
//! [artefact.ptp]
//! url = "cni/v1.9.1/cni-plugins-linux-amd64-v1.9.1.tgz"
//! sha256 = "…"
//! member = "./ptp"                             # the file within the archive (.tar, .tar.gz, .tgz)
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::{Client, Response, StatusCode, header};
use serde::Deserialize;

use crate::build::Job;
use crate::cache::{PROGRAM, Stored, digest, key};
use crate::catalog::{Group, Program};
use crate::error::At;
use crate::manifest::{Artefact, Kind, is_digest};
use crate::progress::bytes;
use crate::{BundleError, Progress, Result};

const CONNECT: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 4;

/// Where official artefacts and their checksums are.
#[derive(Debug, Clone, Default)]
pub struct ReleaseOptions {
    /// A TOML file of addresses and checksums. Without it there is no release source.
    pub checksums: Option<PathBuf>,
    /// Replaces `base` of that file: a mirror.
    pub base_url: Option<String>,
}

impl ReleaseOptions {
    /// From `PILOTHOUSE_RELEASE_CHECKSUMS` and `PILOTHOUSE_RELEASE_URL`.
    pub fn from_env() -> ReleaseOptions {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        ReleaseOptions {
            checksums: variable("PILOTHOUSE_RELEASE_CHECKSUMS").map(PathBuf::from),
            base_url: variable("PILOTHOUSE_RELEASE_URL"),
        }
    }
}

/// The pins of one Kubernetes version, complete.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checksums {
    kubernetes: String,
    base: String,
    #[serde(rename = "artefact")]
    artefacts: BTreeMap<String, Pin>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    url: String,
    sha256: String,
    #[serde(default)]
    member: Option<String>,
}

impl Checksums {
    /// Reads the table the options name and proves it complete.
    pub(crate) fn load(job: &Job<'_>) -> Result<Checksums> {
        let version = job.opts.version.as_str();
        let unknown = || BundleError::NoChecksums { version: version.to_owned() };
        let path = job.opts.release.checksums.as_deref().ok_or_else(unknown)?;
        let text = fs::read_to_string(path).at("read", path)?;
        let malformed = |reason: String| BundleError::Table { path: path.to_owned(), reason };
        let mut table: Checksums = toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if table.kubernetes != version {
            return Err(unknown());
        }
        if let Some((name, _)) = table.artefacts.iter().find(|(_, pin)| !is_digest(&pin.sha256)) {
            return Err(malformed(format!("sha256 of `{name}` is not 64 lower-case hex digits")));
        }
        let lacking = job.catalog.programs().map(|(_, program)| program.name.as_str());
        let lacking: Vec<_> = lacking.filter(|name| !table.artefacts.contains_key(*name)).collect();
        if !lacking.is_empty() {
            return Err(BundleError::MissingChecksums { path: path.to_owned(), names: lacking.join(", ") });
        }
        if let Some(base) = &job.opts.release.base_url {
            table.base.clone_from(base);
        }
        Ok(table)
    }

    /// Whether the server answers anything at all within two seconds.
    pub(crate) async fn answers(&self) -> Result<()> {
        let name = "the release server";
        let request = client(name, &self.base)?.head(&self.base).timeout(CONNECT);
        request.send().await.map(drop).map_err(|source| BundleError::Unreachable { url: self.base.clone(), source })
    }

    fn url(&self, pin: &Pin) -> String {
        if pin.url.contains("://") {
            return pin.url.clone();
        }
        format!("{}/{}", self.base.trim_end_matches('/'), pin.url.trim_start_matches('/'))
    }
}

/// All programs of the catalogue by the table, those that are there already untouched.
pub(crate) async fn fetch(job: &Job<'_>, table: &Checksums) -> Result<Vec<Artefact>> {
    let mut artefacts = Vec::new();
    for (group, program) in job.catalog.programs() {
        let Some(pin) = table.artefacts.get(&program.name) else { continue };
        let url = table.url(pin);
        let key = key(&["release", &pin.sha256, pin.member.as_deref().unwrap_or_default()]);
        if let Some(stored) = job.done(&key).await? {
            artefacts.push(job.cached(&program.name, &stored, artefact(group, program, &url, &stored)));
            continue;
        }
        let begun = Instant::now();
        let stored = one(job, &Item { name: &program.name, url: &url, pin }).await?;
        job.cache.mark_done(&key, &stored)?;
        job.done_report(&program.name, &stored, begun);
        artefacts.push(artefact(group, program, &url, &stored));
    }
    // Archives that several programs came from have served.
    let _ = fs::remove_dir_all(job.cache.downloads());
    Ok(artefacts)
}

fn artefact(group: &Group, program: &Program, url: &str, stored: &Stored) -> Artefact {
    Artefact::stored((&program.name, Kind::Binary), &group.version, url.to_owned(), stored)
}

/// One thing to fetch.
struct Item<'a> {
    name: &'a str,
    url: &'a str,
    pin: &'a Pin,
}

async fn one(job: &Job<'_>, item: &Item<'_>) -> Result<Stored> {
    (job.report)(Progress::Started { name: item.name.to_owned(), action: "fetch" });
    let file = download(job, item).await?;
    let out = job.cache.scratch();
    match &item.pin.member {
        Some(member) => extract(&file, member, &out).and_then(|found| {
            let missing = || BundleError::Member { name: item.name.to_owned(), member: member.clone() };
            found.then_some(()).ok_or_else(missing)
        })?,
        None => fs::rename(&file, &out).at("rename", &file)?,
    }
    job.adopt(&out, PROGRAM).await
}

/// The file as fetched, proven by its checksum; begun again where an earlier attempt stopped.
async fn download(job: &Job<'_>, item: &Item<'_>) -> Result<PathBuf> {
    let whole = job.cache.downloads().join(&item.pin.sha256);
    if whole.exists() {
        return Ok(whole);
    }
    let part = whole.with_extension("part");
    let client = client(item.name, item.url)?;
    for attempt in 1.. {
        match attempt_once(job, item, &client, &part).await {
            Ok(()) => break,
            Err(error) if attempt >= ATTEMPTS || !worth_retrying(&error) => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200) * attempt).await,
        }
    }
    let actual = digest(&part)?.sha256;
    if actual != item.pin.sha256 {
        fs::remove_file(&part).at("remove", &part)?;
        let (name, url, expected) = (item.name.to_owned(), item.url.to_owned(), item.pin.sha256.clone());
        return Err(BundleError::Checksum { name, url, expected, actual });
    }
    fs::rename(&part, &whole).at("rename", &part)?;
    Ok(whole)
}

fn worth_retrying(error: &BundleError) -> bool {
    match error {
        BundleError::Fetch { .. } | BundleError::FetchShort { .. } => true,
        BundleError::FetchStatus { status, .. } => *status >= 500 || *status == 429,
        _ => false,
    }
}

async fn attempt_once(job: &Job<'_>, item: &Item<'_>, client: &Client, part: &Path) -> Result<()> {
    let have = fs::metadata(part).map_or(0, |data| data.len());
    let mut request = client.get(item.url);
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
    }
    let response = request.send().await.map_err(|source| fetch_error(item.name, item.url, source))?;
    let resumed = match response.status() {
        StatusCode::OK => false,
        StatusCode::PARTIAL_CONTENT if have > 0 => true,
        // What is there is all there is, or more: the checksum decides.
        StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(()),
        status => {
            let (name, url) = (item.name.to_owned(), item.url.to_owned());
            return Err(BundleError::FetchStatus { name, url, status: status.as_u16() });
        }
    };
    let mut options = File::options();
    let file = options.create(true).write(true).append(resumed).truncate(!resumed).open(part).at("open", part)?;
    receive(job, item, (response, file, if resumed { have } else { 0 })).await
}

async fn receive(job: &Job<'_>, item: &Item<'_>, (mut response, mut file, start): (Response, File, u64)) -> Result<()> {
    let want = response.content_length().map(|length| length + start);
    let (begun, mut told, mut have) = (Instant::now(), Instant::now(), start);
    loop {
        let chunk = response.chunk().await.map_err(|source| fetch_error(item.name, item.url, source))?;
        let Some(chunk) = chunk else { break };
        file.write_all(&chunk).at("write", Path::new(item.name))?;
        have += chunk.len() as u64;
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            let of = want.map_or_else(String::new, |want| format!(" of {}", bytes(want)));
            let detail = format!("{}{of} fetched", bytes(have));
            (job.report)(Progress::Working { name: item.name.to_owned(), elapsed: begun.elapsed(), detail });
        }
    }
    match want {
        Some(want) if have < want => {
            Err(BundleError::FetchShort { name: item.name.to_owned(), url: item.url.to_owned(), have, want })
        }
        _ => Ok(()),
    }
}

fn client(name: &str, url: &str) -> Result<Client> {
    let builder = Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE);
    builder.build().map_err(|source| fetch_error(name, url, source))
}

fn fetch_error(name: &str, url: &str, source: reqwest::Error) -> BundleError {
    BundleError::Fetch { name: name.to_owned(), url: url.to_owned(), source }
}

/// Copies one member out of a tar archive, compressed or not; false if there is none of that name.
fn extract(archive: &Path, member: &str, to: &Path) -> Result<bool> {
    let file = File::open(archive).at("open", archive)?;
    let mut magic = [0u8; 2];
    let gzip = io::Read::read_exact(&mut &file, &mut magic).is_ok() && magic == [0x1f, 0x8b];
    let file = File::open(archive).at("open", archive)?;
    let reader: Box<dyn io::Read> = if gzip { Box::new(flate2::read::GzDecoder::new(file)) } else { Box::new(file) };
    copy_member(tar::Archive::new(reader), member, to).at("read", archive)
}

fn copy_member(mut archive: tar::Archive<Box<dyn io::Read>>, member: &str, to: &Path) -> io::Result<bool> {
    let plain = |path: &Path| path.strip_prefix("./").unwrap_or(path).to_owned();
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() && plain(&entry.path()?) == plain(Path::new(member)) {
            io::copy(&mut entry, &mut File::create(to)?)?;
            return Ok(true);
        }
    }
    Ok(false)
}
