//! Carries a bundle to another machine as one tar: `bundle.json`, its signature, then each blob under `sha256/`.
//!
//! Whoever carries it may change anything. Before the signature is believed two headers of 512 bytes and the two files behind them are
//! read, each within its bound, and nothing of the list is understood; extended headers, which say their own length, never are.
//! Nothing of the cache changes before every byte is there and right.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tar::{Archive, Builder, Entries, EntryType, Header};

use crate::bundle::Bundle;
use crate::cache::{Cache, DATA, PROGRAM};
use crate::error::At;
use crate::keys::judge;
use crate::manifest::{Artefact, Kind, Manifest, arch, is_digest};
use crate::signature::{Envelope, PublicKey};
use crate::{BundleError, Progress, Report, Result, SignatureFault, disk, free_space};

const FILE: &str = "bundle.json";
const SIGNATURE: &str = "bundle.json.sig";
/// A manifest is some kilobytes and signatures are some hundred bytes; what is larger is neither.
const LONGEST: u64 = 4 << 20;
const LONGEST_SIGNATURE: u64 = 64 << 10;

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
        let (text, signature) = self.signed();
        let envelope = Envelope::of_bundle(vec![signature.clone()]).to_json();
        for (name, text) in [(FILE, text), (SIGNATURE, &envelope)] {
            append(&mut out, name, text.len() as u64, DATA, text.as_bytes()).at("write", to)?;
        }
        for artefact in self.manifest().blobs() {
            let begun = Instant::now();
            let path = self.path(artefact);
            let file = File::open(&path).at("open", &path)?;
            append(&mut out, &artefact.file, artefact.size, mode(artefact), file).at("write", to)?;
            report(done(artefact, begun));
        }
        let mut inner = out.into_inner().at("write", to)?;
        inner.flush().and_then(|()| inner.get_ref().sync_all()).at("write", to)
    }

    /// Takes an exported tar into a cache and makes its bundle the current one of its version. It must be signed by a key that is
    /// trusted here, or by one of `trust`; from then on the own key vouches for it. Every byte is checked. Reads on the calling
    /// thread: run it where a second or two of waiting harms nobody.
    ///
    /// # Errors
    /// [`BundleError::Archive`] if it is not signed by such a key, incomplete, changed or no bundle; the cache then stays as it is.
    pub async fn import(cache: &Cache, from: &Path, trust: &[PublicKey], report: Report<'_>) -> Result<Bundle> {
        let _lock = cache.lock(report).await?;
        let file = BufReader::new(File::open(from).at("open", from)?);
        let mut import = Import { cache, from, trust, report, staged: Vec::new() };
        let manifest = import.run(&mut Archive::new(file))?;
        for (scratch, mode) in std::mem::take(&mut import.staged) {
            cache.adopt(&scratch, mode)?;
        }
        let recipe = crate::build::recipe_of(&manifest);
        Bundle::record(cache, manifest, recipe.as_deref())
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

fn append(out: &mut Builder<impl Write>, path: &str, size: u64, mode: u32, from: impl Read) -> io::Result<()> {
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
    trust: &'a [PublicKey],
    report: Report<'a>,
    /// What arrived whole, with the mode it is to have.
    staged: Vec<(PathBuf, u32)>,
}

impl Drop for Import<'_> {
    fn drop(&mut self) {
        for (scratch, _) in &self.staged {
            // The next build clears what could not be removed.
            let _ = std::fs::remove_file(scratch);
        }
    }
}

impl Import<'_> {
    fn run(&mut self, archive: &mut Archive<impl Read>) -> Result<Manifest> {
        // Raw: an extended header is an entry like others, and none of ours.
        let mut entries = archive.entries().at("read", self.from)?.raw(true);
        let text = self.text(&mut entries, FILE, LONGEST)?.ok_or_else(|| self.refuse("it is no exported bundle"))?;
        let envelope = self.text(&mut entries, SIGNATURE, LONGEST_SIGNATURE)?;
        self.believe(&text, envelope.as_deref())?;
        let manifest = Manifest::parse(&text).map_err(|reason| self.refuse(&reason))?;
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
            if entry.header().entry_type() != EntryType::Regular || entry.size() != artefact.size {
                return Err(self.refuse(&format!("`{}` is no file of {} bytes", artefact.name, artefact.size)));
            }
            self.blob(artefact, entry)?;
        }
        if let Some(artefact) = wanted.first() {
            return Err(self.refuse(&format!("`{}` is missing", artefact.name)));
        }
        Ok(manifest)
    }

    /// The next file, if that is its name.
    fn text<R: Read>(&self, entries: &mut Entries<'_, R>, name: &str, longest: u64) -> Result<Option<String>> {
        let Some(entry) = entries.next() else { return Ok(None) };
        let entry = entry.at("read", self.from)?;
        if entry.header().entry_type() != EntryType::Regular || *entry.path_bytes() != *name.as_bytes() {
            return Ok(None);
        }
        if entry.size() > longest {
            return Err(self.refuse(&format!("its `{name}` is larger than any: {} bytes", entry.size())));
        }
        let mut text = String::new();
        entry.take(longest).read_to_string(&mut text).at("read", self.from)?;
        Ok(Some(text))
    }

    fn believe(&self, manifest: &str, envelope: Option<&str>) -> Result<()> {
        let Some(envelope) = envelope else { return Err(self.refuse(&SignatureFault::Missing.in_archive())) };
        let found = match judge(manifest, envelope, self.trust) {
            Ok(_) => return Ok(()),
            // Given for this one archive; what is trusted always counts as well.
            Err(SignatureFault::Unknown(_)) => self.cache.keys().verify(manifest, envelope)?,
            Err(fault) => Err(fault),
        };
        found.map(drop).map_err(|fault| self.refuse(&fault.in_archive()))
    }

    /// Keeps whatever comes beside the store, and refuses it if its checksum is not the one the manifest names.
    fn blob(&mut self, artefact: &Artefact, entry: impl Read) -> Result<()> {
        debug_assert!(is_digest(&artefact.sha256));
        let begun = Instant::now();
        let scratch = self.cache.scratch();
        let mut out = File::create_new(&scratch).at("create", &scratch)?;
        self.staged.push((scratch.clone(), mode(artefact)));
        io::copy(&mut entry.take(artefact.size.saturating_add(1)), &mut out).at("read", self.from)?;
        let found = crate::cache::digest(&scratch)?;
        if found.sha256 != artefact.sha256 {
            return Err(self.refuse(&format!("checksum of `{}` is wrong: {}", artefact.name, found.sha256)));
        }
        (self.report)(done(artefact, begun));
        Ok(())
    }

    fn refuse(&self, reason: &str) -> BundleError {
        BundleError::Archive { path: self.from.to_owned(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz_tests;
