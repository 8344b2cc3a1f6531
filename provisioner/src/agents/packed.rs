//! Parts in chunks, packed once: the first node that fetches a chunk has it packed, all others get it from a file.
//!
//! The file has no name, so it goes with the process and nobody else can change it. Chunks are known by the checksum of their part
//! and their place in it; at most [`MOST`] bytes of them are kept.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use node_protocol::Chunk;

use super::workers::{WorkError, Workers};

/// Bytes per message.
pub const CHUNK: usize = 256 * 1024;
/// zstd's fastest regular level: kubelet becomes 30 % of itself, at some 300 megabytes a second.
const LEVEL: i32 = 1;
/// Bytes kept, at most: some ten Kubernetes versions.
const MOST: u64 = 1 << 30;
/// Threads that pack, and chunks that wait for one: as many as fetches may be under way.
const PACKERS: (usize, usize) = (2, 256);
/// Threads that only read.
const READERS: (usize, usize) = (4, 256);

/// The kept chunks.
pub struct Packed {
    kept: Arc<Kept>,
    packers: Workers,
    readers: Workers,
}

struct Kept {
    file: io::Result<File>,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    end: u64,
    chunks: HashMap<(Arc<str>, u64), Form>,
}

/// How a chunk travels.
#[derive(Clone, Copy)]
enum Form {
    /// As it is: packing makes it no smaller.
    Plain,
    /// Packed, at this place of the file.
    Packed { offset: u64, length: usize, unpacked: u32 },
}

/// Which bytes of which part.
#[derive(Clone)]
pub struct Piece {
    /// The part.
    pub file: Arc<File>,
    /// Its checksum.
    pub sha256: Arc<str>,
    /// From here on.
    pub offset: u64,
}

impl Packed {
    /// Keeps chunks in a file of that directory; where none can be made there, each is packed each time.
    pub fn new(dir: &Path) -> Self {
        let file = nameless(dir);
        if let Err(error) = &file {
            tracing::warn!(dir = %dir.display(), %error, "compressed artifacts are not cached: compressing per node");
        }
        let kept = Arc::new(Kept { file, index: Mutex::default() });
        let [packers, readers] = [PACKERS, READERS].map(|(threads, queue)| Workers::new(threads, queue));
        Self { kept, packers, readers }
    }

    /// The next bytes, packed if requested and worth it, and how many they are; none at the end.
    ///
    /// # Errors
    /// The file system's, or that too much waits for it.
    pub async fn next(&self, piece: Piece, packed: bool) -> io::Result<(Chunk, usize)> {
        let kept = self.kept.clone();
        let is_work = packed && kept.form(&piece).is_none();
        let pool = if is_work { &self.packers } else { &self.readers };
        let done = pool.run(move || if packed { kept.packed(&piece) } else { plain(&piece) }).await;
        done.map_err(|error| match error {
            WorkError::Busy => io::Error::new(io::ErrorKind::ResourceBusy, error),
            WorkError::Lost => io::Error::other(error),
        })?
    }
}

impl Kept {
    fn packed(&self, piece: &Piece) -> io::Result<(Chunk, usize)> {
        match (self.form(piece), &self.file) {
            (Some(Form::Packed { offset, length, unpacked }), Ok(file)) => {
                let mut data = vec![0; length];
                file.read_exact_at(&mut data, offset)?;
                Ok((Chunk { data, unpacked }, unpacked as usize))
            }
            (Some(_), _) => plain(piece),
            (None, _) => self.pack(piece),
        }
    }

    /// Packs, and keeps what will be asked for again: whole chunks, not what begins in the middle of one.
    fn pack(&self, piece: &Piece) -> io::Result<(Chunk, usize)> {
        let (chunk, filled) = plain(piece)?;
        let data = zstd::bulk::compress(&chunk.data, LEVEL)?;
        let unpacked = u32::try_from(filled).map_err(io::Error::other)?;
        let is_smaller = data.len() < filled;
        if piece.offset.is_multiple_of(CHUNK as u64) && filled > 0 {
            self.keep(piece, is_smaller.then_some(&data), unpacked)?;
        }
        Ok((if is_smaller { Chunk { data, unpacked } } else { chunk }, filled))
    }

    fn keep(&self, piece: &Piece, data: Option<&Vec<u8>>, unpacked: u32) -> io::Result<()> {
        let Ok(file) = &self.file else { return Ok(()) };
        let mut index = self.index();
        let (key, offset) = ((piece.sha256.clone(), piece.offset), index.end);
        if index.chunks.contains_key(&key) {
            return Ok(());
        }
        let Some(data) = data else { return index.note(key, Form::Plain) };
        if offset + data.len() as u64 > MOST {
            return Ok(());
        }
        file.write_all_at(data, offset)?;
        index.end += data.len() as u64;
        index.note(key, Form::Packed { offset, length: data.len(), unpacked })
    }

    fn form(&self, piece: &Piece) -> Option<Form> {
        self.index().chunks.get(&(piece.sha256.clone(), piece.offset)).copied()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn note(&mut self, key: (Arc<str>, u64), form: Form) -> io::Result<()> {
        self.chunks.insert(key, form);
        Ok(())
    }
}

/// The bytes up to the end of their chunk, as they are.
fn plain(piece: &Piece) -> io::Result<(Chunk, usize)> {
    let into = usize::try_from(piece.offset % CHUNK as u64).map_err(io::Error::other)?;
    let (mut data, mut filled) = (vec![0; CHUNK - into], 0);
    while filled < data.len() {
        match piece.file.read_at(&mut data[filled..], piece.offset + filled as u64)? {
            0 => break,
            more => filled += more,
        }
    }
    data.truncate(filled);
    Ok((Chunk { data, unpacked: 0 }, filled))
}

/// A file that only this process has.
fn nameless(dir: &Path) -> io::Result<File> {
    let path = dir.join(format!("packed-{}", uuid::Uuid::now_v7()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn piece(data: &[u8], offset: u64) -> Piece {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(data).unwrap();
        Piece { file: Arc::new(file), sha256: "ab".into(), offset }
    }

    fn unpacked(chunk: &Chunk) -> Vec<u8> {
        match chunk.unpacked {
            0 => chunk.data.clone(),
            length => zstd::bulk::decompress(&chunk.data, length as usize).unwrap(),
        }
    }

    #[tokio::test]
    async fn a_chunk_is_packed_once() {
        let dir = tempfile::tempdir().unwrap();
        let packed = Packed::new(dir.path());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing lies about");
        let data = vec![7; CHUNK + 1000];
        let (first, length) = packed.next(piece(&data, 0), true).await.unwrap();
        assert_eq!((length, unpacked(&first)), (CHUNK, vec![7; CHUNK]));
        // It now comes from the file, whatever the part says.
        let (again, length) = packed.next(piece(&[0; 10], 0), true).await.unwrap();
        assert!(length == CHUNK && again == first);
        let (last, length) = packed.next(piece(&data, CHUNK as u64), true).await.unwrap();
        assert_eq!((length, unpacked(&last)), (1000, vec![7; 1000]));
        assert_eq!(packed.next(piece(&data, data.len() as u64), true).await.unwrap().1, 0);
        assert_eq!(packed.kept.index().chunks.len(), 2);
    }

    #[tokio::test]
    async fn what_begins_within_a_chunk_ends_with_it_and_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let packed = Packed::new(dir.path());
        let (chunk, length) = packed.next(piece(&vec![7; 2 * CHUNK], 1000), true).await.unwrap();
        assert_eq!((length, unpacked(&chunk).len()), (CHUNK - 1000, CHUNK - 1000));
        assert!(chunk.unpacked > 0 && packed.kept.index().chunks.is_empty());
    }

    #[tokio::test]
    async fn without_a_directory_chunks_are_packed_all_the_same() {
        let packed = Packed::new(Path::new("/nonexistent"));
        let (chunk, length) = packed.next(piece(&[7; 1000], 0), true).await.unwrap();
        assert_eq!((length, unpacked(&chunk)), (1000, vec![7; 1000]));
    }

    #[tokio::test]
    async fn what_packing_makes_no_smaller_travels_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let packed = Packed::new(dir.path());
        let noise: Vec<u8> = (0..4000).map(|_| rand::random()).collect();
        for _ in 0..2 {
            let (chunk, length) = packed.next(piece(&noise, 0), true).await.unwrap();
            assert!(chunk.unpacked == 0 && length == noise.len() && chunk.data == noise);
        }
    }
}
