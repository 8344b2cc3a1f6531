//! A part on its way: what arrives is unpacked, written and summed up on a thread of its own while the rest still travels.
//!
//! On a slow machine both take as long as the line, and the part is usable as soon as its last byte is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use node_linux::files;
use node_protocol::node_link_client::NodeLinkClient;
use node_protocol::{Chunk, FetchRequest, Part, PartKind};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tonic::transport::Channel;
use zstd::bulk::Decompressor;

use crate::fetch::FetchError;
use crate::machine::hex;

/// Chunks that wait for the disk.
const WAITING: usize = 1;
/// Bytes a packed chunk may become.
const LARGEST: usize = 1 << 20;

/// How a transfer ended on the platform's side.
type End = Result<(), Box<tonic::Status>>;

/// Length and SHA-256 of bytes seen so far. By the `sha2` crate: with the processor's own SHA instructions it is as fast as aws-lc, and
/// in an emulated machine 1.4 to 6 times as fast, because it keeps to plain registers.
#[derive(Default)]
pub struct Sum {
    /// In bytes.
    pub length: u64,
    hash: Sha256,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.length = self.length.saturating_add(bytes.len() as u64);
        self.hash.update(bytes);
    }

    /// Adds a file to its end. Blocks.
    pub fn read(&mut self, file: &mut File) -> io::Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                count => self.add(&buffer[..count]),
            }
        }
    }

    /// Compares with what was promised; a promised size of 0 is none.
    pub fn verify(self, part: &Part) -> Result<(), FetchError> {
        let mismatch = |got: String| {
            let expected = format!("{} bytes of sha-256 {}", part.size, part.sha256);
            Err(FetchError::Mismatch { name: part.name.clone(), expected, got })
        };
        if part.size > 0 && self.length != part.size {
            return mismatch(format!("{} bytes", self.length));
        }
        let got = hex(&self.hash.finalize());
        if got == part.sha256 { Ok(()) } else { mismatch(format!("sha-256 {got}")) }
    }
}

/// A part that is not complete. Its file stays when this is dropped, and is gone on with.
pub struct Partial {
    part: Part,
    dir: PathBuf,
    file: File,
    sum: Sum,
}

impl Partial {
    /// What an earlier attempt left in `dir`, or nothing yet.
    pub async fn open(dir: PathBuf, part: Part) -> Result<Self, FetchError> {
        tokio::task::spawn_blocking(move || {
            let path = path(&dir, &part);
            let open = || OpenOptions::new().create(true).read(true).append(true).open(&path);
            let mut file = open().map_err(files::io("open", &path))?;
            // An attempt that was given up a moment ago may still write its last chunk.
            file.lock().map_err(files::io("lock", &path))?;
            let mut sum = Sum::default();
            sum.read(&mut file).map_err(files::io("read", &path))?;
            if part.size > 0 && sum.length > part.size {
                file.set_len(0).map_err(files::io("empty", &path))?;
                sum = Sum::default();
            }
            Ok(Self { part, dir, file, sum })
        })
        .await?
    }

    /// One transfer from where the file ends. The outer error is ours, the inner one the platform's.
    pub async fn take(self, link: &mut NodeLinkClient<Channel>) -> Result<(Self, End), FetchError> {
        let (offset, size) = (self.sum.length, self.part.size);
        if size > 0 && offset == size {
            return Ok((self, Ok(())));
        }
        let chunks = match link.fetch(FetchRequest { sha256: self.part.sha256.clone(), offset, zstd: true }).await {
            Ok(reply) => reply.into_inner(),
            Err(status) => return Ok((self, Err(Box::new(status)))),
        };
        let (sender, receiver) = mpsc::channel(WAITING);
        let writer = tokio::task::spawn_blocking(move || self.write(receiver));
        let end = pass_on(chunks, sender, size.saturating_sub(offset)).await;
        Ok((writer.await??, end))
    }

    fn write(mut self, mut chunks: mpsc::Receiver<Chunk>) -> Result<Self, FetchError> {
        let packed = |source| FetchError::Packed { name: self.part.name.clone(), source };
        let mut unpacker = Decompressor::new().map_err(packed)?;
        let mut buffer = Vec::new();
        while let Some(chunk) = chunks.blocking_recv() {
            let data = plain(&chunk, &mut unpacker, &mut buffer).map_err(packed)?;
            self.file.write_all(data).map_err(files::io("write", &path(&self.dir, &self.part)))?;
            self.sum.add(data);
        }
        Ok(self)
    }

    /// Gives it its name when it is what was promised; throws it away when it is not.
    pub fn finish(self) -> Result<(), FetchError> {
        let partial = path(&self.dir, &self.part);
        if let Err(error) = self.sum.verify(&self.part) {
            files::remove(&partial)?;
            return Err(error);
        }
        let mode = if self.part.kind() == PartKind::Binary { 0o755 } else { 0o644 };
        let target = self.dir.join(&self.part.sha256);
        let ready = fs::set_permissions(&partial, fs::Permissions::from_mode(mode))
            .and_then(|()| fs::rename(&partial, &target));
        Ok(ready.map_err(files::io("keep", &target))?)
    }
}

/// A chunk's own bytes; those of a packed one lie in `buffer`.
fn plain<'a>(chunk: &'a Chunk, unpacker: &mut Decompressor<'_>, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
    match usize::try_from(chunk.unpacked).unwrap_or(usize::MAX) {
        0 => Ok(&chunk.data),
        length if length > LARGEST => {
            Err(io::Error::other(format!("a chunk of {length} bytes, {LARGEST} is the most")))
        }
        length => {
            buffer.clear();
            buffer.reserve_exact(length);
            match unpacker.decompress_to_buffer(&chunk.data, buffer)? {
                count if count == length => Ok(buffer),
                count => Err(io::Error::other(format!("{count} bytes instead of {length}"))),
            }
        }
    }
}

fn path(dir: &Path, part: &Part) -> PathBuf {
    dir.join(format!("{}.partial", part.sha256))
}

/// Hands on what arrives, to the end, until nobody takes it, or until it is more than the `rest` (0: unknown), as the sum then tells.
async fn pass_on(mut chunks: tonic::Streaming<Chunk>, writer: mpsc::Sender<Chunk>, rest: u64) -> End {
    let mut arrived = 0;
    while let Some(chunk) = chunks.message().await? {
        arrived += u64::from(chunk.unpacked).max(chunk.data.len() as u64);
        if writer.send(chunk).await.is_err() || rest > 0 && arrived > rest {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::machine::sha256_hex;

    #[tokio::test]
    async fn an_attempt_waits_for_the_last_chunk_of_one_that_was_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let part = Part { name: "kubelet".into(), sha256: sha256_hex(b"both chunks"), size: 11, ..Part::default() };
        let open = || Partial::open(dir.path().to_owned(), part.clone());
        let given_up = open().await.unwrap();
        let mut next = Box::pin(open());
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut next).await.is_err(), "it does not wait");
        let (sender, receiver) = mpsc::channel(1);
        sender.send(Chunk { data: b"both chunks".to_vec(), unpacked: 0 }).await.unwrap();
        drop(sender);
        drop(tokio::task::spawn_blocking(|| given_up.write(receiver)).await.unwrap().unwrap());
        next.await.unwrap().finish().unwrap();
        assert_eq!(fs::read(dir.path().join(&part.sha256)).unwrap(), b"both chunks");
    }

    #[test]
    fn a_packed_chunk_is_as_long_as_it_says_and_no_bomb() {
        let mut unpacker = Decompressor::new().unwrap();
        let mut buffer = Vec::new();
        let mut unpack = |data: &[u8], unpacked: usize| {
            let chunk = Chunk { data: data.to_vec(), unpacked: u32::try_from(unpacked).unwrap() };
            plain(&chunk, &mut unpacker, &mut buffer).map(<[u8]>::to_vec)
        };
        let packed = zstd::bulk::compress(&[7; 4096], 1).unwrap();
        assert_eq!(unpack(&packed, 4096).unwrap(), [7; 4096]);
        assert!(unpack(&packed, 4095).is_err() && unpack(&packed, 4097).is_err());
        assert!(unpack(b"no frame", 8).is_err());
        let bomb = zstd::bulk::compress(&vec![0; LARGEST + 1], 1).unwrap();
        assert!(unpack(&bomb, LARGEST).is_err() && unpack(&bomb, LARGEST + 1).is_err());
        assert_eq!(unpack(b"plain", 0).unwrap(), b"plain");
    }
}
