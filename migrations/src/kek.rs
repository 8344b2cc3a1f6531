//! The key-encryption key: 32 bytes in a file beside the data, under which every other secret is kept in the database.
//!
//! A secret is sealed with AES-256-GCM and a fresh 96-bit nonce; what it belongs to (its table and id) is authenticated with it, so a
//! sealed value moved to another row does not open. Stored form: a version byte (2), eight bytes that name the key, nonce, ciphertext with
//! tag. Version 1, which earlier releases wrote, does not name its key.
//!
//! While keys are rotated two are known: all is sealed under the new one, and either opens.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{digest, rand};
use thiserror::Error;
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::error::StoreError;

const KEY_LEN: usize = 32;
/// Bytes that name a key: the first of a SHA-256 of it, which says nothing of the key.
const NAME_LEN: usize = 8;
const NAMELESS: u8 = 1;
const NAMED: u8 = 2;

/// Why there is no key-encryption key. Never holds key material.
#[derive(Debug, Error)]
pub enum KekError {
    /// The file exists and cannot be read.
    #[error("read key-encryption key {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is none and it cannot be made.
    #[error("create key-encryption key {}", path.display())]
    Create {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else than 64 hexadecimal digits.
    #[error("the key-encryption key {} is damaged: restore the file from a backup", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// Others than its owner can read or write the file.
    #[error("others can read the key-encryption key: run `chmod 600 {}`", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
    },
    /// A command that should print the key did not.
    #[error("the key-encryption key command {problem}: run it manually as the same user")]
    Command {
        /// What it did instead; nothing of its output.
        problem: String,
    },
    /// The system gives no randomness.
    #[error("draw random bytes")]
    Random,
}

/// One key and what it is called in sealed values.
struct Key {
    bytes: Zeroizing<[u8; KEY_LEN]>,
    name: [u8; NAME_LEN],
}

/// The key, ready for use, and while keys are rotated the one before it. Cloning shares them; `Debug` shows nothing of them.
#[derive(Clone)]
pub struct Kek {
    current: Arc<Key>,
    previous: Option<Arc<Key>>,
}

impl std::fmt::Debug for Kek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kek(…)")
    }
}

impl Kek {
    /// Reads the key from a file, or makes both. A new file appears whole and with mode 0600, or not at all; of several processes
    /// that come first at the same time one makes it and all read the same key.
    ///
    /// # Errors
    /// [`KekError`] with the path and the next step.
    pub fn load_or_create(path: &Path) -> Result<Self, KekError> {
        match fs::exists(path) {
            Ok(true) => Self::load(path),
            Ok(false) => create(path).and_then(|()| Self::load(path)),
            Err(source) => Err(KekError::Read { path: path.to_owned(), source }),
        }
    }

    fn load(path: &Path) -> Result<Self, KekError> {
        let failed = |source| KekError::Read { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(KekError::Exposed { path: path.to_owned() });
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        let bytes = decode(text.trim()).ok_or_else(|| KekError::Malformed { path: path.to_owned() })?;
        Ok(Self::from_bytes(&bytes))
    }

    /// A key from its bytes, for whoever keeps it elsewhere than in a file.
    pub fn from_bytes(bytes: &[u8; KEY_LEN]) -> Self {
        let bytes = Zeroizing::new(*bytes);
        let mut hashing = digest::Context::new(&digest::SHA256);
        hashing.update(b"pilothouse key-encryption key\0");
        hashing.update(bytes.as_slice());
        let mut name = [0; NAME_LEN];
        name.iter_mut().zip(hashing.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self { current: Arc::new(Key { bytes, name }), previous: None }
    }

    /// The key that a command prints on its standard output, 64 hexadecimal digits. The command is one for `sh -c`; what it prints is in no
    /// log and no error. It gets as long as `limit`.
    ///
    /// # Errors
    /// [`KekError::Command`].
    pub async fn from_command(command: &str, limit: Duration) -> Result<Self, KekError> {
        let failed = |problem: String| KekError::Command { problem };
        let mut run = Command::new("sh");
        run.args(["-c", command]).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let output = tokio::time::timeout(limit, run.output()).await;
        let output = output.map_err(|_| failed(format!("did not end within {} s", limit.as_secs())))?;
        let output = output.map_err(|error| failed(format!("could not be started ({})", error.kind())))?;
        let printed = Zeroizing::new(output.stdout);
        if !output.status.success() {
            return Err(failed(format!("failed ({})", output.status)));
        }
        let text = std::str::from_utf8(&printed).unwrap_or_default();
        let bytes = decode(text.trim()).ok_or_else(|| failed("printed no key (64 hexadecimal digits)".to_owned()))?;
        Ok(Self::from_bytes(&bytes))
    }

    /// This key for all that is sealed from now on, and `previous` for what was sealed before.
    #[must_use]
    pub fn with_previous(self, previous: &Self) -> Self {
        Self { previous: Some(Arc::clone(&previous.current)), ..self }
    }

    /// Whether both seal with the same key.
    pub fn is_same(&self, other: &Self) -> bool {
        self.current.name == other.current.name
    }

    /// Whether a sealed value names the key that is current.
    pub(crate) fn is_current(&self, sealed: &[u8]) -> bool {
        sealed.strip_prefix(&[NAMED]).is_some_and(|rest| rest.starts_with(&self.current.name))
    }

    /// Seals a secret that belongs to `owner` (table and id).
    pub(crate) fn seal(&self, owner: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let refused = |_| StoreError::unavailable("the system's cryptography does not work");
        let mut nonce = [0_u8; NONCE_LEN];
        rand::fill(&mut nonce).map_err(refused)?;
        let mut sealed = plain.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(owner.as_bytes());
        let key = &self.current;
        key.cipher().and_then(|key| key.seal_in_place_append_tag(unique, aad, &mut sealed)).map_err(refused)?;
        Ok([&[NAMED], key.name.as_slice(), nonce.as_slice(), sealed.as_slice()].concat())
    }

    /// Opens what [`Kek::seal`] made for the same `owner`; `None` when key, owner or bytes differ.
    pub(crate) fn open(&self, owner: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut keys = std::iter::once(&self.current).chain(&self.previous);
        match sealed.split_first()? {
            (&NAMELESS, rest) => keys.find_map(|key| key.open(owner, rest)),
            (&NAMED, rest) => {
                let (name, rest) = rest.split_at_checked(NAME_LEN)?;
                keys.find(|key| key.name == name)?.open(owner, rest)
            }
            _ => None,
        }
    }
}

impl Key {
    fn cipher(&self) -> Result<LessSafeKey, Unspecified> {
        UnboundKey::new(&AES_256_GCM, self.bytes.as_slice()).map(LessSafeKey::new)
    }

    /// Opens a nonce and what was sealed with it.
    fn open(&self, owner: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self.cipher().ok()?.open_in_place(nonce, Aad::from(owner.as_bytes()), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

/// Writes a new key beside its place and links it there: a link never replaces a file, so the first one wins.
fn create(path: &Path) -> Result<(), KekError> {
    let failed = |source| KekError::Create { path: path.to_owned(), source };
    let mut bytes = Zeroizing::new([0_u8; KEY_LEN]);
    rand::fill(bytes.as_mut_slice()).map_err(|_| KekError::Random)?;
    let text: Zeroizing<String> = Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    let draft = path.with_extension(format!("new-{}", uuid::Uuid::now_v7().simple()));
    let linked = write(&draft, &text).and_then(|()| link(&draft, path));
    let removed = fs::remove_file(&draft);
    linked.map_err(failed)?;
    removed.map_err(failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

fn write(draft: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn link(draft: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn decode(text: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    let digits = text.as_bytes();
    let mut bytes = Zeroizing::new([0_u8; KEY_LEN]);
    if digits.len() != 2 * KEY_LEN {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_private_and_the_same_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        let keys: Vec<Kek> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| Kek::load_or_create(&path).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no drafts are left");
        let sealed = keys[0].seal("row", b"secret").unwrap();
        assert!(keys.iter().all(|key| key.open("row", &sealed).unwrap().as_slice() == b"secret"));
        assert!(!format!("{:?}", keys[0]).contains(fs::read_to_string(&path).unwrap().trim()));
    }

    #[test]
    fn opens_only_for_its_owner_key_and_bytes() {
        let (key, other) = (Kek::from_bytes(&[1; 32]), Kek::from_bytes(&[2; 32]));
        let sealed = key.seal("a", b"secret").unwrap();
        assert!(key.open("a", &sealed).is_some());
        assert!(key.open("b", &sealed).is_none() && other.open("a", &sealed).is_none());
        for place in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[place] ^= 1;
            assert!(key.open("a", &bent).is_none(), "byte {place}");
        }
        assert!(
            key.open("a", &[]).is_none() && key.open("a", &[NAMELESS]).is_none() && key.open("a", &[NAMED]).is_none()
        );
        assert_ne!(sealed, key.seal("a", b"secret").unwrap(), "nonces differ");
    }

    #[test]
    fn two_keys_are_known_while_they_are_rotated() {
        let (old, new) = (Kek::from_bytes(&[1; 32]), Kek::from_bytes(&[2; 32]));
        let before = old.seal("a", b"secret").unwrap();
        // As releases before this one wrote it.
        let nameless = [&[NAMELESS], &before[1 + NAME_LEN..]].concat();
        let both = new.clone().with_previous(&old);
        for sealed in [&before, &nameless] {
            assert_eq!(old.open("a", sealed).unwrap().as_slice(), b"secret");
            assert_eq!(both.open("a", sealed).unwrap().as_slice(), b"secret");
            assert!(new.open("a", sealed).is_none() && both.open("b", sealed).is_none() && !both.is_current(sealed));
        }
        let after = both.seal("a", b"secret").unwrap();
        assert!(both.is_current(&after) && new.open("a", &after).is_some() && old.open("a", &after).is_none());
        assert!(new.is_same(&both) && !new.is_same(&old));
        assert!(!after.windows(4).any(|bytes| bytes == [2; 4]), "the name is no part of the key");
    }

    #[tokio::test]
    async fn a_command_prints_the_key_and_nothing_of_it_shows() {
        let limit = Duration::from_secs(20);
        let digits = "0a".repeat(32);
        let key = Kek::from_command(&format!("echo {digits}"), limit).await.unwrap();
        assert!(key.is_same(&Kek::from_bytes(&[10; 32])));
        for (command, problem) in [
            (format!("echo {digits}; exit 3"), "failed (exit status: 3)"),
            (format!("echo {digits}0"), "printed no key"),
            (format!("echo {digits} >&2"), "printed no key"),
        ] {
            let error = Kek::from_command(&command, limit).await.unwrap_err().to_string();
            assert!(error.contains(problem) && !error.contains("0a0a"), "{error}");
        }
        let slow = Kek::from_command("sleep 60", Duration::from_millis(50)).await.unwrap_err();
        assert!(slow.to_string().contains("did not end"), "{slow}");
    }

    #[test]
    fn refuses_files_that_are_damaged_or_open_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        Kek::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Kek::load_or_create(&path), Err(KekError::Exposed { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "zz").unwrap();
        assert!(matches!(Kek::load_or_create(&path), Err(KekError::Malformed { .. })));
        assert!(matches!(Kek::load_or_create(&dir.path().join("no/kek")), Err(KekError::Create { .. })));
    }
}
