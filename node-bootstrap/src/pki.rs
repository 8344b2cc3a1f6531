//! The node's keys and certificates on disk.
//!
//! A generation is a directory with four pairs (link, kubelet, proxy, serving); `current` is a link to one of them. A renewal
//! writes the next directory in full and then moves the link, so a reader never sees a key beside another key's certificate.
//! kubelet and kube-proxy read their files again by themselves.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use node_linux::files::{self, FileError};
use node_protocol::Certificates;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use crate::machine::sha256_hex;
use crate::spec::{Identities, KeyPairFiles};

/// The four identities of a node.
pub const NAMES: [&str; 4] = ["link", "kubelet", "proxy", "serving"];

/// Keys or certificates that cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key or signing request could not be made.
    #[error("make a key or signing request")]
    Make(#[from] rcgen::Error),
    /// What the platform sent is no certificate.
    #[error("the {0} certificate from the platform is not readable")]
    Unreadable(&'static str),
}

/// New keys whose certificates are not there yet.
#[derive(Debug)]
pub struct Pending {
    dir: PathBuf,
    /// The signing requests, PEM, in the order of [`NAMES`].
    pub requests: [String; 4],
}

/// The directory of all generations.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Keys below `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The link that names the present generation.
    pub fn current(&self) -> PathBuf {
        self.dir.join("current")
    }

    /// The files kubelet and kube-proxy use.
    pub fn identities(&self) -> Identities {
        let current = self.current();
        let files = |name: &str| KeyPairFiles {
            cert_file: current.join(format!("{name}.crt")),
            key_file: current.join(format!("{name}.key")),
        };
        Identities { kubelet: files("kubelet"), proxy: files("proxy"), serving: files("serving") }
    }

    /// Makes four keys (P-256) in a new generation. Their subjects are only requests: the platform decides.
    pub fn prepare(&self, node_name: &str) -> Result<Pending, PkiError> {
        files::make_private_dir(&self.dir)?;
        self.drop_all_but(&fs::canonicalize(self.current()).unwrap_or_default())?;
        let dir = self.dir.join(self.next_name());
        files::make_private_dir(&dir)?;
        let mut requests = [const { String::new() }; 4];
        for (name, request) in NAMES.iter().zip(&mut requests) {
            *request = make(&dir, name, node_name)?;
        }
        Ok(Pending { dir, requests })
    }

    fn next_name(&self) -> String {
        let numbers = self.generations().into_iter().filter_map(|path| path.file_name()?.to_str()?.parse::<u64>().ok());
        (numbers.max().unwrap_or(0) + 1).to_string()
    }

    fn generations(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let dirs = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|entry| entry.path()).collect()
    }

    /// Puts certificates beside their keys, makes that generation the present one, and removes the others.
    pub fn accept(&self, pending: &Pending, certificates: &Certificates) -> Result<(), PkiError> {
        let pems =
            [&certificates.link_cert, &certificates.kubelet_cert, &certificates.proxy_cert, &certificates.serving_cert];
        for (name, pem) in NAMES.into_iter().zip(pems) {
            lifetime(pem).ok_or(PkiError::Unreadable(name))?;
            files::write(&pending.dir.join(format!("{name}.crt")), pem.as_bytes(), 0o644)?;
        }
        let generation = PathBuf::from(pending.dir.file_name().unwrap_or_default());
        files::relink(&generation, &self.current())?;
        Ok(self.drop_all_but(&pending.dir)?)
    }

    /// Removes old generations, and those of attempts that failed.
    fn drop_all_but(&self, keep: &Path) -> Result<(), FileError> {
        let kept = keep.file_name();
        for old in self.generations().into_iter().filter(|dir| dir.file_name() != kept) {
            fs::remove_dir_all(&old).map_err(files::io("remove", &old))?;
        }
        Ok(())
    }

    /// True when any of the four certificates is due, or not there.
    pub fn renewal_due(&self, now: OffsetDateTime) -> bool {
        let text = |name: &str| fs::read_to_string(self.current().join(format!("{name}.crt"))).unwrap_or_default();
        NAMES.into_iter().any(|name| renewal_due(&text(name), now))
    }

    /// True when a client certificate (kubelet's, kube-proxy's) is over, or not there.
    pub fn has_ended(&self, now: OffsetDateTime) -> bool {
        let text = |name: &str| fs::read_to_string(self.current().join(format!("{name}.crt"))).unwrap_or_default();
        ["kubelet", "proxy"].into_iter().any(|name| lifetime(&text(name)).is_none_or(|(_, to)| to <= now))
    }

    /// True when kubelet's serving certificate names this address.
    pub fn serves(&self, address: Ipv4Addr) -> bool {
        fs::read_to_string(self.identities().serving.cert_file).is_ok_and(|pem| names(&pem, address))
    }

    /// The link's certificate chain and key, PEM.
    pub fn link(&self) -> Result<(String, Zeroizing<String>), FileError> {
        let current = self.current();
        let certificate = files::read_text(&current.join("link.crt"))?;
        let key = files::read_text(&current.join("link.key")).map(Zeroizing::new)?;
        Ok((certificate, key))
    }
}

fn make(dir: &Path, name: &str, node_name: &str) -> Result<String, PkiError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let pem = Zeroizing::new(key.serialize_pem());
    files::write(&dir.join(format!("{name}.key")), pem.as_bytes(), 0o600)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{name} of {node_name}"));
    Ok(params.serialize_request(&key)?.pem()?)
}

/// From when to when a certificate holds (the first of a chain).
pub fn lifetime(pem: &str) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.to_datetime(), validity.not_after.to_datetime()))
}

/// True when between half and two thirds of a certificate's life have passed: renew then, with a third left for a platform that is
/// away. Where in between, the certificate's own bytes say, so that machines that joined together do not renew together.
pub fn renewal_due(pem: &str, now: OffsetDateTime) -> bool {
    let spread = f64::from(u8::from_str_radix(&sha256_hex(pem.as_bytes())[..2], 16).unwrap_or(0)) / 256.0;
    lifetime(pem).is_none_or(|(from, to)| now >= from + (to - from) * (0.5 + spread / 6.0))
}

/// True when a certificate (the first of a chain) names this address.
fn names(pem: &str, address: Ipv4Addr) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else { return false };
    let Ok(certificate) = pem.parse_x509() else { return false };
    let wanted = GeneralName::IPAddress(&address.octets());
    certificate.subject_alternative_name().ok().flatten().is_some_and(|sans| sans.value.general_names.contains(&wanted))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A self-signed certificate that holds for `days` from `from` on.
    pub(crate) fn certificate(from: OffsetDateTime, days: i64) -> String {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec!["x.example".into()]).unwrap();
        (params.not_before, params.not_after) = (from, from + time::Duration::days(days));
        params.self_signed(&key).unwrap().pem()
    }

    fn certificates() -> Certificates {
        let pem = certificate(OffsetDateTime::now_utc(), 9);
        Certificates { link_cert: pem.clone(), kubelet_cert: pem.clone(), proxy_cert: pem.clone(), serving_cert: pem }
    }

    #[test]
    fn a_renewal_replaces_all_pairs_at_once_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("pki"));
        let first = store.prepare("n1").unwrap();
        assert!(first.requests.iter().all(|request| request.contains("CERTIFICATE REQUEST")));
        store.accept(&first, &certificates()).unwrap();
        let key = store.identities().kubelet.key_file;
        let old = fs::read(&key).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);

        let second = store.prepare("n1").unwrap();
        assert_eq!(fs::read(&key).unwrap(), old, "until it is accepted nothing changes");
        store.accept(&second, &certificates()).unwrap();
        assert_ne!(fs::read(&key).unwrap(), old);
        assert_eq!(store.generations().len(), 1);
    }

    #[test]
    fn rubbish_from_the_platform_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("pki"));
        let pending = store.prepare("n1").unwrap();
        let broken = Certificates { serving_cert: "x".into(), ..certificates() };
        assert!(matches!(store.accept(&pending, &broken), Err(PkiError::Unreadable("serving"))));
        assert!(!store.current().exists());
    }

    #[test]
    fn renewal_is_due_between_half_and_two_thirds() {
        let from = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let due_from = |pem: &str| (0..=24 * 12).find(|hours| renewal_due(pem, from + time::Duration::hours(*hours)));
        let all: Vec<_> = (0..8).map(|_| due_from(&certificate(from, 12)).unwrap()).collect();
        assert!(all.iter().all(|hours| (24 * 6..=24 * 8).contains(hours)), "{all:?}");
        assert!(all.iter().any(|hours| *hours != all[0]), "not all together: {all:?}");
        assert!(renewal_due("rubbish", from));
    }

    #[test]
    fn the_first_of_the_four_to_be_due_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("pki"));
        let now = OffsetDateTime::now_utc();
        let pending = store.prepare("n1").unwrap();
        let long = certificate(now, 30);
        let mut all = Certificates {
            link_cert: long.clone(),
            kubelet_cert: certificate(now, 7),
            proxy_cert: certificate(now, 7),
            serving_cert: long,
        };
        store.accept(&pending, &all).unwrap();
        assert!(!store.renewal_due(now + time::Duration::days(3)));
        assert!(!store.has_ended(now + time::Duration::days(6)) && store.has_ended(now + time::Duration::days(7)));
        assert!(store.renewal_due(now + time::Duration::days(5)), "kubelet's, though the link's has weeks to go");
        all.proxy_cert = certificate(now - time::Duration::days(8), 7);
        store.accept(&store.prepare("n1").unwrap(), &all).unwrap();
        assert!(store.renewal_due(now), "an ended one too");
    }

    #[test]
    fn a_serving_certificate_is_read_for_its_addresses() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let params = CertificateParams::new(vec!["n1".into(), "10.244.3.1".into()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        assert!(names(&pem, Ipv4Addr::new(10, 244, 3, 1)));
        assert!(!names(&pem, Ipv4Addr::new(10, 244, 4, 1)));
        assert!(!names("rubbish", Ipv4Addr::new(10, 244, 3, 1)));
    }
}
