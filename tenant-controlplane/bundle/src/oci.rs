//! Writes an OCI image layout with one uncompressed layer as a single tar, the same bytes for the same input.
//!
//! Uncompressed, because the archive never crosses a slow wire and importing is then a copy. Every time is the epoch,
//! every owner is root, every list is sorted. Formats: OCI image-spec 1.1 (`image-layout.md`, `config.md`, `layer.md`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::cache::hex;

const EPOCH: &str = "1970-01-01T00:00:00Z";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What lies at one path of the layer.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    /// A directory with its mode.
    Dir(u32),
    /// A small file with its mode.
    Text(u32, String),
    /// A copy of a file with this SHA-256 (lower-case hex), mode 0755.
    Program(PathBuf, String),
    /// A symbolic link to a target.
    Link(String),
}

/// One image to write.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// `pilothouse.local/etcd:3.6.16`; becomes the name under which containerd imports it.
    pub(crate) reference: String,
    /// Architecture as OCI spells it.
    pub(crate) arch: &'static str,
    /// The program that always runs; empty to leave it to the command.
    pub(crate) entrypoint: Vec<String>,
    /// What runs, or is appended to the entrypoint, unless the pod says otherwise.
    pub(crate) command: Vec<String>,
    /// `uid:gid` unless the pod says otherwise.
    pub(crate) user: String,
    /// The layer by path, without a leading slash.
    pub(crate) entries: BTreeMap<String, Entry>,
}

/// Writes the archive to `to`; `scratch` is a file name for the layer, which must be known before it can be named.
pub(crate) fn write(image: &Image, to: &Path, scratch: &Path) -> io::Result<()> {
    let mut hashing = Hashing { inner: BufWriter::new(File::create(scratch)?), hasher: Sha256::new(), count: 0 };
    layer(image, &mut hashing)?;
    hashing.inner.flush()?;
    let (layer_digest, layer_size) = (hex(hashing.hasher), hashing.count);

    let config = config(image, &layer_digest).to_string();
    let config_digest = hex(Sha256::new_with_prefix(&config));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config_digest, config.len() as u64),
        "layers": [descriptor(LAYER, &layer_digest, layer_size)],
    })
    .to_string();
    let index = index(image, &manifest).to_string();

    let mut out = Builder::new(BufWriter::new(File::create(to)?));
    directory(&mut out, "blobs/", 0o755)?;
    directory(&mut out, "blobs/sha256/", 0o755)?;
    bytes(&mut out, &blob(&config_digest), config.as_bytes(), 0o644)?;
    let mut layer = BufReader::new(File::open(scratch)?);
    stream(&mut out, &blob(&layer_digest), &mut layer, layer_size, 0o644)?;
    bytes(&mut out, &blob(&hex(Sha256::new_with_prefix(&manifest))), manifest.as_bytes(), 0o644)?;
    bytes(&mut out, "index.json", index.as_bytes(), 0o644)?;
    bytes(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    out.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::remove_file(scratch)
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size })
}

fn config(image: &Image, layer: &str) -> Value {
    json!({
        "architecture": image.arch,
        "os": "linux",
        "created": EPOCH,
        "config": {
            "User": image.user,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": EPOCH, "created_by": "pilothouse bundle" }],
    })
}

/// containerd names the image by `io.containerd.image.name`; other tools read the tag.
fn index(image: &Image, manifest: &str) -> Value {
    let tag = image.reference.rsplit(':').next().unwrap_or_default();
    let mut entry = descriptor(MANIFEST, &hex(Sha256::new_with_prefix(manifest)), manifest.len() as u64);
    entry["platform"] = json!({ "architecture": image.arch, "os": "linux" });
    entry["annotations"] = json!({
        "io.containerd.image.name": image.reference,
        "org.opencontainers.image.ref.name": tag,
    });
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry] })
}

fn layer(image: &Image, to: &mut impl Write) -> io::Result<()> {
    let mut out = Builder::new(to);
    for (path, entry) in &image.entries {
        match entry {
            Entry::Dir(mode) => directory(&mut out, &format!("{path}/"), *mode)?,
            Entry::Text(mode, text) => bytes(&mut out, path, text.as_bytes(), *mode)?,
            Entry::Program(from, sha256) => program(&mut out, path, from, sha256)?,
            Entry::Link(target) => {
                let mut header = header(EntryType::Symlink, 0, 0o777);
                out.append_link(&mut header, path, target)?;
            }
        }
    }
    out.finish()
}

/// Who can write to a cache could change a file after it was looked at, and have it signed as part of the image.
fn program(out: &mut Builder<impl Write>, path: &str, from: &Path, sha256: &str) -> io::Result<()> {
    let file = File::open(from)?;
    let size = file.metadata()?.len();
    let mut file = Hashing { inner: file, hasher: Sha256::new(), count: 0 };
    stream(out, path, &mut file, size, 0o755)?;
    if hex(file.hasher) == sha256 {
        return Ok(());
    }
    let said = format!("{} was changed while it was packed: find out who can write to it", from.display());
    Err(io::Error::new(io::ErrorKind::InvalidData, said))
}

fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn directory(out: &mut Builder<impl Write>, path: &str, mode: u32) -> io::Result<()> {
    out.append_data(&mut header(EntryType::Directory, 0, mode), path, io::empty())
}

fn bytes(out: &mut Builder<impl Write>, path: &str, text: &[u8], mode: u32) -> io::Result<()> {
    out.append_data(&mut header(EntryType::Regular, text.len() as u64, mode), path, text)
}

/// Appends exactly the announced size, or fails: a file that changes under us must not shift what follows.
fn stream(out: &mut Builder<impl Write>, path: &str, from: &mut impl Read, size: u64, mode: u32) -> io::Result<()> {
    out.append_data(&mut header(EntryType::Regular, size, mode), path, from.take(size))
}

/// Hashes and counts what passes through.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    count: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
