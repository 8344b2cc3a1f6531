//! Carries a bundle to another machine as one tar: `bundle.json`, then each blob under `sha256/`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tar::{Archive, Builder, EntryType, Header};

use crate::bundle::Bundle;
use crate::cache::{Cache, DATA, PROGRAM};
use crate::error::At;
use crate::manifest::{Artefact, Kind, Manifest, arch, is_digest};
use crate::{BundleError, Progress, Report, Result, disk, free_space};

const FILE: &str = "bundle.json";
/// A manifest is some kilobytes; what is larger is none.
const LONGEST: u64 = 4 << 20;

impl Bundle {
    /// Writes one tar with everything in it, the same bytes for the same bundle. `to` appears when it is complete.
    ///
    /// # Errors
    /// A part cannot be read, or `to` cannot be written.
    pub fn export(&self, to: &Path, report: Report<'_>) -> Result<()> {
        let part = part_name(to);
        let written = self.write_archive(&part, report);
        if written.is_err() {
            let _ = std::fs::remove_file(&part);
        }
        written?;
        std::fs::rename(&part, to).at("write", to)
    }

    fn write_archive(&self, to: &Path, report: Report<'_>) -> Result<()> {
        // Begun anew and by us: a link somebody left under this name must not lead us elsewhere.
        match std::fs::remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).at("remove", to),
            _ => {}
        }
        let file = File::options().write(true).create_new(true).open(to).at("create", to)?;
        let mut out = Builder::new(BufWriter::new(file));
        let text = self.manifest().to_json();
        append(&mut out, FILE, (text.len() as u64, DATA), text.as_bytes()).at("write", to)?;
        for artefact in self.manifest().blobs() {
            let begun = Instant::now();
            let path = self.path(artefact);
            let file = File::open(&path).at("open", &path)?;
            append(&mut out, &artefact.file, (artefact.size, mode(artefact)), file).at("write", to)?;
            report(done(artefact, begun));
        }
        let mut inner = out.into_inner().at("write", to)?;
        inner.flush().and_then(|()| inner.get_ref().sync_all()).at("write", to)
    }

    /// Takes an exported tar into a cache and makes its bundle the current one of its version. Every byte is checked.
    /// Reads on the calling thread: run it where a second or two of waiting harms nobody.
    ///
    /// # Errors
    /// [`BundleError::Archive`] if it is incomplete, changed or no bundle; the cache's current bundle then stays.
    pub async fn import(cache: &Path, from: &Path, report: Report<'_>) -> Result<Bundle> {
        let cache = Cache::new(cache);
        let _lock = cache.lock(report).await?;
        let file = BufReader::new(File::open(from).at("open", from)?);
        let manifest = Import { cache: &cache, from, report }.run(&mut Archive::new(file))?;
        let recipe = crate::build::recipe_of(&manifest);
        Bundle::record(&cache, manifest, recipe.as_deref())
    }
}

fn part_name(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    to.with_file_name(name)
}

fn mode(artefact: &Artefact) -> u32 {
    if artefact.kind == Kind::Image { DATA } else { PROGRAM }
}

fn done(artefact: &Artefact, begun: Instant) -> Progress {
    Progress::Done { name: artefact.name.clone(), size: artefact.size, elapsed: begun.elapsed(), cached: false }
}

fn append(out: &mut Builder<impl Write>, path: &str, (size, mode): (u64, u32), from: impl Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    out.append_data(&mut header, path, from.take(size))
}

/// One import under way.
struct Import<'a> {
    cache: &'a Cache,
    from: &'a Path,
    report: Report<'a>,
}

impl Import<'_> {
    fn run(&self, archive: &mut Archive<impl Read>) -> Result<Manifest> {
        let mut entries = archive.entries().at("read", self.from)?;
        let first = entries.next().ok_or_else(|| self.refuse("it is empty"))?;
        let manifest = self.manifest(first.at("read", self.from)?)?;
        if manifest.arch != arch() {
            return Err(self.refuse(&format!("it is for {}, this machine is {}", manifest.arch, arch())));
        }
        disk::check(&[(self.cache.dir().to_owned(), manifest.size())], &free_space(), self.report)?;
        let mut wanted: Vec<&Artefact> = manifest.blobs().collect();
        for entry in entries {
            let entry = entry.at("read", self.from)?;
            let path = entry.path().at("read", self.from)?.display().to_string();
            let position = wanted.iter().position(|artefact| artefact.file == path);
            let artefact = wanted.swap_remove(position.ok_or_else(|| self.refuse(&format!("unexpected `{path}`")))?);
            self.blob(artefact, entry)?;
        }
        if let Some(artefact) = wanted.first() {
            return Err(self.refuse(&format!("`{}` is missing", artefact.name)));
        }
        Ok(manifest)
    }

    fn manifest(&self, entry: impl Read) -> Result<Manifest> {
        let mut text = String::new();
        entry.take(LONGEST).read_to_string(&mut text).at("read", self.from)?;
        Manifest::parse(&text).map_err(|reason| self.refuse(&reason))
    }

    /// Stores under its own checksum whatever comes, and refuses it if that is not the one the manifest names.
    fn blob(&self, artefact: &Artefact, entry: impl Read) -> Result<()> {
        debug_assert!(is_digest(&artefact.sha256));
        let begun = Instant::now();
        let scratch = self.cache.scratch();
        let mut out = File::create(&scratch).at("create", &scratch)?;
        io::copy(&mut entry.take(artefact.size.saturating_add(1)), &mut out).at("read", self.from)?;
        let found = crate::cache::digest(&scratch)?;
        if found.sha256 != artefact.sha256 {
            std::fs::remove_file(&scratch).at("remove", &scratch)?;
            return Err(self.refuse(&format!("checksum of `{}` is wrong: {}", artefact.name, found.sha256)));
        }
        self.cache.adopt(&scratch, mode(artefact))?;
        (self.report)(done(artefact, begun));
        Ok(())
    }

    fn refuse(&self, reason: &str) -> BundleError {
        BundleError::Archive { path: self.from.to_owned(), reason: reason.to_owned() }
    }
}
