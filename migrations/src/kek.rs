//! The key-encryption key: 32 bytes in a file beside the data, under which every other secret is kept in the database.
//!
//! A secret is sealed with AES-256-GCM and a fresh 96-bit nonce; what it belongs to (its table and id) is authenticated with it, so a
//! sealed value moved to another row does not open. Stored form: one version byte, nonce, ciphertext with tag.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::error::StoreError;

const KEY_LEN: usize = 32;
const VERSION: u8 = 1;

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
    #[error("the key-encryption key {} is damaged: put back the file from a backup", path.display())]
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
    /// The system gives no randomness.
    #[error("draw random bytes")]
    Random,
}

/// The key, ready for use. Cloning shares it; `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Kek(Arc<Zeroizing<[u8; KEY_LEN]>>);

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
        Self(Arc::new(Zeroizing::new(*bytes)))
    }

    fn cipher(&self) -> Result<LessSafeKey, Unspecified> {
        UnboundKey::new(&AES_256_GCM, self.0.as_slice()).map(LessSafeKey::new)
    }

    /// Seals a secret that belongs to `owner` (table and id).
    pub(crate) fn seal(&self, owner: &str, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let refused = |_| StoreError::unavailable("the system's cryptography does not work");
        let mut nonce = [0_u8; NONCE_LEN];
        rand::fill(&mut nonce).map_err(refused)?;
        let mut sealed = plain.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(owner.as_bytes());
        self.cipher().and_then(|key| key.seal_in_place_append_tag(unique, aad, &mut sealed)).map_err(refused)?;
        Ok([&[VERSION], nonce.as_slice(), sealed.as_slice()].concat())
    }

    /// Opens what [`Kek::seal`] made for the same `owner`; `None` when key, owner or bytes differ.
    pub(crate) fn open(&self, owner: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let rest = sealed.strip_prefix(&[VERSION])?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
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
        assert!(key.open("a", &[]).is_none() && key.open("a", &[VERSION]).is_none());
        assert_ne!(sealed, key.seal("a", b"secret").unwrap(), "nonces differ");
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
