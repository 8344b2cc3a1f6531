//! The `release` source: official artefacts over HTTP, accepted only by pinned checksum, see [`table`].
//!
//! What arrived stays until it is whole and proven, so an interruption costs nothing but the connection. An archive is
//! fetched once for all programs in it. A program without a pin is built instead, by [`crate::modules`].

mod table;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use reqwest::{Client, Response, StatusCode, header};

use crate::build::{Job, blocking};
use crate::cache::{PROGRAM, Stored, key};
use crate::catalog::{Entry, Group, Program};
use crate::error::At;
use crate::manifest::{Artefact, Kind};
use crate::progress::bytes;
use crate::{BundleError, Progress, Result};
pub(crate) use table::{Checksums, Pin};

const CONNECT: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 4;
/// Programs and images of one version with the archives they come in; what fetching needs at most.
pub(crate) const ROOM: u64 = 2200 << 20;
/// What archives and the image at hand take outside the cache.
pub(crate) const ARCHIVES: u64 = 900 << 20;

/// Where official artefacts and their checksums are.
#[derive(Debug, Clone)]
pub struct ReleaseOptions {
    /// A TOML file of addresses and checksums instead of the shipped one.
    pub checksums: Option<PathBuf>,
    /// A mirror. It has relative addresses of the table as they are, others under their host: `<mirror>/<host>/<path>`.
    pub base_url: Option<String>,
    /// How long a server may say nothing in the middle of an answer; 30 s.
    pub silence: Duration,
}

impl Default for ReleaseOptions {
    fn default() -> Self {
        ReleaseOptions { checksums: None, base_url: None, silence: SILENCE }
    }
}

impl ReleaseOptions {
    /// From `PILOTHOUSE_RELEASE_CHECKSUMS` and `PILOTHOUSE_RELEASE_URL`.
    pub fn from_env() -> ReleaseOptions {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        ReleaseOptions {
            checksums: variable("PILOTHOUSE_RELEASE_CHECKSUMS").map(PathBuf::from),
            base_url: variable("PILOTHOUSE_RELEASE_URL"),
            ..ReleaseOptions::default()
        }
    }
}

/// What is there of the pinned programs, and what is to be fetched.
pub(crate) struct Order<'a> {
    ready: Vec<Artefact>,
    missing: Vec<Item<'a>>,
}

/// One program to fetch.
struct Item<'a> {
    group: &'a Group,
    program: &'a Program,
    pin: &'a Pin,
    url: String,
}

impl Item<'_> {
    fn name(&self) -> &str {
        &self.program.name
    }

    fn key(&self) -> String {
        key(&["release", self.pin.sum.hex(), self.pin.member.as_deref().unwrap_or_default()])
    }

    fn artefact(&self, stored: &Stored) -> Artefact {
        Artefact::stored(self.name(), Kind::Binary, &self.group.version, shown(&self.url), stored)
    }
}

impl<'a> Order<'a> {
    /// Looks for every pinned program in the store, by checksum.
    pub(crate) async fn look(job: &'a Job<'_>, table: &'a Checksums) -> Result<Order<'a>> {
        let mut order = Order { ready: Vec::new(), missing: Vec::new() };
        for (group, program) in job.catalog.programs() {
            let Some(pin) = table.pin(&program.name) else { continue };
            let item = Item { group, program, pin, url: table.url(pin) };
            match job.done(&item.key()).await? {
                Some(stored) => order.ready.push(item.artefact(&stored)),
                None => order.missing.push(item),
            }
        }
        Ok(order)
    }

    /// Whether nothing has to be fetched.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether every server answers for the first file that is wanted of it, all of them within two seconds.
    pub(crate) async fn answers(&self) -> Result<()> {
        let mut asked: Vec<&str> = Vec::new();
        let ask = async {
            for item in &self.missing {
                let origin = origin(&item.url);
                if !asked.contains(&origin) {
                    asked.push(origin);
                    probe(item).await?;
                }
            }
            Ok(())
        };
        let late = tokio::time::timeout(CONNECT, ask).await;
        let url = || asked.last().map(|url| shown(url)).unwrap_or_default();
        late.unwrap_or_else(|_| Err(BundleError::Unreachable { url: url(), source: None }))
    }

    /// Tells the build's estimate what is missing.
    pub(crate) fn announce(&self, job: &Job<'_>) {
        job.estimate.plan_files(self.missing.iter().map(Item::name));
    }

    /// Fetches what is missing. Archives that several programs came from have served then.
    pub(crate) async fn fetch(mut self, job: &Job<'_>) -> Result<Vec<Artefact>> {
        self.ready.iter().for_each(|part| job.cached(part));
        let mut proven = Proven::new();
        for item in &self.missing {
            let begun = Instant::now();
            (job.report)(Progress::Started { name: item.name().to_owned(), action: "fetch" });
            let file = download(job, item, &mut proven).await?;
            let stored = unpack(job, item, &file).await?;
            if item.pin.member.is_none() {
                proven.remove(item.pin.sum.hex());
                fs::remove_file(&file).at("remove", &file)?;
            }
            job.cache.mark_done(&item.key(), &stored)?;
            job.done_report(item.name(), &stored, begun);
            self.ready.push(item.artefact(&stored));
        }
        if !self.missing.is_empty() {
            let _ = fs::remove_dir_all(job.cache.downloads());
        }
        Ok(self.ready)
    }
}

/// The programs of the catalog the table does not pin.
pub(crate) fn unpinned<'a>(job: &'a Job<'_>, table: &Checksums) -> Vec<Entry<'a>> {
    job.catalog.programs().filter(|(_, program)| table.pin(&program.name).is_none()).collect()
}

async fn probe(item: &Item<'_>) -> Result<()> {
    let unreachable = |source| BundleError::Unreachable { url: shown(origin(&item.url)), source: Some(source) };
    let client = Client::builder().connect_timeout(CONNECT).timeout(CONNECT).build().map_err(unreachable)?;
    let status = client.head(&item.url).send().await.map_err(unreachable)?.status();
    if status.is_success() { Ok(()) } else { Err(refused(item, status)) }
}

/// `https://host` of an address.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    url[host..].find('/').map_or(url, |at| &url[..host + at])
}

/// An address without the name and password a mirror's may carry.
fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let host = rest.split('/').next().unwrap_or_default();
    match host.rsplit_once('@') {
        Some((secret, _)) => format!("{scheme}://{}", &rest[secret.len() + 1..]),
        None => url.to_owned(),
    }
}

/// Copies outside the cache of what was fetched, by checksum.
type Proven = HashMap<String, PathBuf>;

/// The file as fetched, proven by its checksum; begun again where an earlier attempt stopped. What is in the cache may change
/// any time: taken is the copy that was proven.
async fn download(job: &Job<'_>, item: &Item<'_>, proven: &mut Proven) -> Result<PathBuf> {
    let sum = item.pin.sum.hex();
    if let Some(copy) = proven.get(sum) {
        return Ok(copy.clone());
    }
    let copy = fetch(job, item, &job.cache.downloads().join(sum)).await?;
    proven.insert(sum.to_owned(), copy.clone());
    Ok(copy)
}

async fn fetch(job: &Job<'_>, item: &Item<'_>, whole: &Path) -> Result<PathBuf> {
    let part = whole.with_extension("part");
    if whole.exists()
        && let Ok(copy) = prove(job, item, whole).await
    {
        return Ok(copy);
    }
    let resumed = fs::metadata(&part).is_ok_and(|data| data.len() > 0);
    receive_all(job, item, &part).await?;
    let copy = match prove(job, item, &part).await {
        Err(_) if resumed => {
            // The beginning came from an earlier run, and perhaps of another file.
            receive_all(job, item, &part).await?;
            prove(job, item, &part).await?
        }
        other => other?,
    };
    fs::rename(&part, whole).at("rename", &part)?;
    Ok(copy)
}

/// Copies it out of the cache and compares the copy with the pin; what differs is removed.
async fn prove(job: &Job<'_>, item: &Item<'_>, part: &Path) -> Result<PathBuf> {
    let (sum, path, copy) = (item.pin.sum.clone(), part.to_owned(), job.workdir()?.file());
    let to = copy.clone();
    let actual = blocking(move || sum.of_copy(&path, &to)).await?;
    let expected = item.pin.sum.hex().to_owned();
    if actual == expected {
        return Ok(copy);
    }
    fs::remove_file(part).at("remove", part)?;
    fs::remove_file(&copy).at("remove", &copy)?;
    Err(BundleError::Checksum { name: item.name().to_owned(), url: shown(&item.url), expected, actual })
}

async fn receive_all(job: &Job<'_>, item: &Item<'_>, part: &Path) -> Result<()> {
    let builder = Client::builder().connect_timeout(CONNECT).read_timeout(job.opts.release.silence);
    let client = builder.build().map_err(|source| fetch_error(item, source))?;
    for attempt in 1.. {
        match attempt_once(job, item, &client, part).await {
            Ok(()) => break,
            Err(error) if attempt >= ATTEMPTS || !worth_retrying(&error) => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200) * attempt).await,
        }
    }
    Ok(())
}

fn worth_retrying(error: &BundleError) -> bool {
    match error {
        BundleError::Fetch { .. } | BundleError::FetchShort { .. } => true,
        BundleError::FetchStatus { status, .. } => *status >= 500 || *status == 429,
        _ => false,
    }
}

async fn attempt_once(job: &Job<'_>, item: &Item<'_>, client: &Client, part: &Path) -> Result<()> {
    let have = fs::symlink_metadata(part).map_or(0, |data| data.len());
    let mut request = client.get(&item.url);
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
    }
    let response = request.send().await.map_err(|source| fetch_error(item, source))?;
    let resumed = match response.status() {
        StatusCode::OK => false,
        StatusCode::PARTIAL_CONTENT if have > 0 => true,
        // What is there is all there is, or more: the checksum decides.
        StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(()),
        status => return Err(refused(item, status)),
    };
    let mut options = File::options();
    // No link that somebody put there is followed.
    options.custom_flags(OFlag::O_NOFOLLOW.bits());
    let file = options.create(true).write(true).append(resumed).truncate(!resumed).open(part).at("open", part)?;
    let received = receive(job, item, (response, &file, if resumed { have } else { 0 })).await;
    if let Err(BundleError::TooLarge { .. }) = received {
        fs::remove_file(part).at("remove", part)?;
    }
    received?;
    file.sync_all().at("sync", part)
}

async fn receive(
    job: &Job<'_>,
    item: &Item<'_>,
    (mut response, mut file, start): (Response, &File, u64),
) -> Result<()> {
    let want = response.content_length().map(|length| length.saturating_add(start));
    let (begun, mut told, mut have) = (Instant::now(), Instant::now(), start);
    within(item, want.unwrap_or(0))?;
    loop {
        let chunk = response.chunk().await.map_err(|source| fetch_error(item, source))?;
        let Some(chunk) = chunk else { break };
        have += chunk.len() as u64;
        within(item, have)?;
        file.write_all(&chunk).at("write", Path::new(item.name()))?;
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            let of = want.map_or_else(String::new, |want| format!(" of {}", bytes(want)));
            let detail = format!("{}{of} fetched", bytes(have));
            let (name, elapsed) = (item.name().to_owned(), begun.elapsed());
            (job.report)(Progress::Working { name, elapsed, detail, count: 0, overall: None });
        }
    }
    match want {
        Some(want) if have < want => {
            Err(BundleError::FetchShort { name: item.name().to_owned(), url: shown(&item.url), have, want })
        }
        _ => Ok(()),
    }
}

fn within(item: &Item<'_>, size: u64) -> Result<()> {
    if size <= item.pin.limit {
        return Ok(());
    }
    Err(BundleError::TooLarge { name: item.name().to_owned(), url: shown(&item.url), limit: item.pin.limit })
}

fn refused(item: &Item<'_>, status: StatusCode) -> BundleError {
    BundleError::FetchStatus { name: item.name().to_owned(), url: shown(&item.url), status: status.as_u16() }
}

fn fetch_error(item: &Item<'_>, source: reqwest::Error) -> BundleError {
    BundleError::Fetch { name: item.name().to_owned(), url: shown(&item.url), source }
}

/// Takes the program out of the proven file and into the store.
async fn unpack(job: &Job<'_>, item: &Item<'_>, file: &Path) -> Result<Stored> {
    let (from, out, member) = (file.to_owned(), job.workdir()?.file(), item.pin.member.clone());
    let (cache, name) = (job.cache.clone(), item.name().to_owned());
    blocking(move || {
        let Some(member) = member else { return cache.copy_in(&from, PROGRAM) };
        if !extract(&from, &member, &out)? {
            return Err(BundleError::Member { name, member });
        }
        let stored = cache.copy_in(&out, PROGRAM)?;
        fs::remove_file(&out).at("remove", &out)?;
        Ok(stored)
    })
    .await
}

/// Copies one member out of a tar archive, compressed or not; false if there is no regular file of exactly that name.
/// Nothing is written but `to`, whatever names and links the archive holds.
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
            let size = entry.size();
            let copied = io::copy(&mut entry, &mut File::create(to)?)?;
            return if copied == size { Ok(true) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_their_password() {
        assert_eq!(shown("https://user:secret@mirror.example/a@b"), "https://mirror.example/a@b");
        assert_eq!(shown("https://mirror.example/a@b"), "https://mirror.example/a@b");
        assert_eq!(origin("https://mirror.example/a/b"), "https://mirror.example");
        assert_eq!(origin("https://mirror.example"), "https://mirror.example");
    }

    #[test]
    fn an_archive_writes_nothing_but_the_file_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let mut out = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        out.append_link(&mut header, "runc", "/etc/passwd").unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        let name = b"../../evil";
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        out.append(&header, &b"evil"[..]).unwrap();
        let archive = inner.join("x.tar");
        fs::write(&archive, out.into_inner().unwrap()).unwrap();
        // A link of the right name is not the program.
        assert!(!extract(&archive, "runc", &inner.join("out")).unwrap());
        assert!(!dir.path().join("evil").exists() && !inner.join("out").exists());
    }
}
