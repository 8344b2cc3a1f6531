//! The table of official artefacts of one Kubernetes version: where each program is, and its pinned checksum.
//!
//! Shipped in `data/release`, for linux/amd64 only so far; the options may name another file. Its form:
//!
//! ```toml
//! kubernetes = "1.36.3"
//! arch = "amd64"
//! base = "https://dl.k8s.io"                   # for relative addresses
//!
//! [artefact.kubelet]
//! url = "release/v1.36.3/bin/linux/amd64/kubelet"
//! sha256 = "…"                                 # or sha512; of what is fetched
//! from = "…"                                   # where the checksum was read
//!
//! [artefact.ptp]
//! url = "https://mirror.example.org/cni-plugins-linux-amd64-v1.9.1.tgz"
//! sha256 = "…"
//! member = "ptp"                               # the file within the archive (.tar, .tar.gz, .tgz)
//! max_mib = 100                                # more than this is refused; 1024 unless said
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Sha256, Sha512};

use crate::error::At;
use crate::manifest::{arch, is_hex};
use crate::workdir::copy_own;
use crate::{BundleError, ReleaseOptions, Result, Version};

const SHIPPED: [(&str, &str); 2] = [
    ("1.36.3", include_str!("../../data/release/1.36.3.toml")),
    ("1.35.4", include_str!("../../data/release/1.35.4.toml")),
];

/// No artefact of Kubernetes comes near; an endless answer must not fill the disk.
const MAX_MIB: u64 = 1024;

/// The pins of one Kubernetes version. Programs may be missing: those are built.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checksums {
    kubernetes: String,
    #[serde(default = "amd64")]
    arch: String,
    base: String,
    #[serde(rename = "artefact")]
    artefacts: BTreeMap<String, Pin>,
    /// A mirror, from the options.
    #[serde(skip)]
    mirror: Option<String>,
}

fn amd64() -> String {
    "amd64".to_owned()
}

/// One file to fetch, and what to take from it.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Row")]
pub(crate) struct Pin {
    url: String,
    pub(crate) sum: Sum,
    pub(crate) member: Option<String>,
    /// More bytes than this are refused.
    pub(crate) limit: u64,
}

/// A row as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    url: String,
    sha256: Option<String>,
    sha512: Option<String>,
    member: Option<String>,
    max_mib: Option<u64>,
    #[serde(rename = "from")]
    _from: Option<String>,
}

/// A pinned checksum, lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sum {
    Sha256(String),
    Sha512(String),
}

impl Sum {
    /// The hex digits.
    pub(crate) fn hex(&self) -> &str {
        match self {
            Sum::Sha256(hex) | Sum::Sha512(hex) => hex,
        }
    }

    /// The same kind of checksum over a file of the cache that is copied, in the length it has now.
    pub(crate) fn of_copy(&self, from: &Path, to: &Path) -> Result<String> {
        Ok(match self {
            Sum::Sha256(_) => copy_own::<Sha256>(from, to)?,
            Sum::Sha512(_) => copy_own::<Sha512>(from, to)?,
        })
    }
}

impl TryFrom<Row> for Pin {
    type Error = String;

    fn try_from(row: Row) -> Result<Pin, String> {
        let sum = match (row.sha256, row.sha512) {
            (Some(hex), None) if is_hex(&hex, 64) => Sum::Sha256(hex),
            (None, Some(hex)) if is_hex(&hex, 128) => Sum::Sha512(hex),
            (Some(_), None) => return Err("a sha256 has 64 lower-case hex digits".to_owned()),
            (None, Some(_)) => return Err("a sha512 has 128 lower-case hex digits".to_owned()),
            _ => return Err("each artefact needs either sha256 or sha512".to_owned()),
        };
        let limit = row.max_mib.unwrap_or(MAX_MIB).saturating_mul(1 << 20);
        Ok(Pin { url: row.url, sum, member: row.member, limit })
    }
}

impl Checksums {
    /// The table the options name, or else the shipped one.
    ///
    /// # Errors
    /// There is none for this version and architecture, or it is malformed.
    pub(crate) fn load(version: Version, opts: &ReleaseOptions) -> Result<Checksums> {
        let unknown = || BundleError::NoChecksums { version: version.to_string(), arch: arch() };
        let (path, text) = match &opts.checksums {
            Some(path) => (path.clone(), fs::read_to_string(path).at("read", path)?),
            None => {
                let shipped = SHIPPED.into_iter().find(|(known, _)| *known == version.as_str());
                let (name, text) = shipped.ok_or_else(unknown)?;
                (PathBuf::from(format!("data/release/{name}.toml")), text.to_owned())
            }
        };
        let table: Result<Checksums, _> = toml::from_str(&text);
        let mut table = table.map_err(|error| BundleError::Table { path, reason: error.to_string() })?;
        if table.kubernetes != version.as_str() || table.arch != arch() {
            return Err(unknown());
        }
        table.mirror.clone_from(&opts.base_url);
        Ok(table)
    }

    /// The pin of a program, if it has one.
    pub(crate) fn pin(&self, program: &str) -> Option<&Pin> {
        self.artefacts.get(program)
    }

    /// Where to fetch from. A mirror keeps absolute addresses under their host's name: `<mirror>/<host>/<path>`.
    pub(crate) fn url(&self, pin: &Pin) -> String {
        let base = self.mirror.as_deref().unwrap_or(&self.base).trim_end_matches('/');
        match (pin.url.split_once("://"), &self.mirror) {
            (None, _) => format!("{base}/{}", pin.url.trim_start_matches('/')),
            (Some((_, rest)), Some(_)) => format!("{base}/{rest}"),
            (Some(_), None) => pin.url.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn shipped_tables_pin_the_catalogue_s_very_versions() {
        if arch() != "amd64" {
            return;
        }
        for version in Version::known() {
            let table = Checksums::load(version, &ReleaseOptions::default()).unwrap();
            let catalog = Catalog::load(version).unwrap();
            for (name, pin) in &table.artefacts {
                let (group, _) = catalog.programs().find(|(_, program)| program.name == *name).expect(name);
                assert!(pin.url.contains(&format!("v{}/", group.version)), "{name}: {}", pin.url);
                assert!(table.url(pin).starts_with("https://"), "{}", table.url(pin));
                let one =
                    table.artefacts.values().filter(|other| other.url == pin.url).all(|other| other.sum == pin.sum);
                assert!(one, "{} has two checksums", pin.url);
            }
            let kubernetes = catalog.groups.iter().find(|group| group.name == "kubernetes").unwrap();
            assert!(kubernetes.binaries.iter().all(|program| table.pin(&program.name).is_some()), "{version}");
            assert!(table.pin("pause").is_none());
        }
    }

    #[test]
    fn every_shipped_checksum_says_where_it_was_read() {
        for (_, text) in SHIPPED {
            assert_eq!(text.matches("\n[artefact.").count(), text.matches("\nfrom = \"").count());
        }
    }

    #[test]
    fn a_mirror_takes_relative_and_absolute_addresses() {
        let text = format!(
            "kubernetes = \"1.36.3\"\nbase = \"https://one.example\"\n[artefact.a]\nurl = \"x/a\"\nsha256 = \"{0}\"\n\
             [artefact.b]\nurl = \"https://two.example/y/b\"\nsha512 = \"{0}{0}\"\n",
            "0".repeat(64)
        );
        let mut table: Checksums = toml::from_str(&text).unwrap();
        let urls = |table: &Checksums| table.artefacts.values().map(|pin| table.url(pin)).collect::<Vec<_>>();
        assert_eq!(urls(&table), ["https://one.example/x/a", "https://two.example/y/b"]);
        table.mirror = Some("http://mirror.example/k/".to_owned());
        assert_eq!(urls(&table), ["http://mirror.example/k/x/a", "http://mirror.example/k/two.example/y/b"]);
    }

    #[test]
    fn malformed_checksums_are_refused() {
        for row in ["sha256 = \"abc\"", "sha512 = \"abc\"", "", "sha256 = \"a\"\nsha512 = \"a\""] {
            let text = format!("kubernetes = \"1\"\nbase = \"\"\n[artefact.a]\nurl = \"a\"\n{row}\n");
            let error = toml::from_str::<Checksums>(&text).unwrap_err().to_string();
            assert!(error.contains("sha256") || error.contains("sha512"), "{error}");
        }
    }
}
