//! What nodes fetch: the bundles' parts, as the provisioner asks for them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use bundle::{Artefact, BundleError, Kind, Statement};
use node_protocol::program;
use provisioner::{Part, PartKind, Parts, Signed, Succession};
use tenant_controlplane::version::KubernetesVersion;

use crate::components::Bundles;

/// The images that lie ready on every node: nothing is pulled between a machine's boot and its first pod. Busybox is there to
/// try things out with.
const IMAGES: [&str; 3] = ["pause", "coredns", "busybox"];

/// Parts of all bundles of an instance.
pub struct BundleParts {
    bundles: Bundles,
    signed: BTreeMap<KubernetesVersion, Signed>,
    dir: PathBuf,
}

impl BundleParts {
    /// Parts of these bundles, all signed by the key of the host's; `dir` is where packed ones are kept while the platform runs.
    ///
    /// # Errors
    /// One is signed by another key, or the signing key cannot be used.
    pub fn new(bundles: Bundles, dir: PathBuf) -> Result<Self, BundleError> {
        let key = bundles.host.signer();
        let signed = bundles.iter().map(|(version, bundle)| Ok((version, signed(bundle.statement(key)?))));
        let signed = signed.collect::<Result<_, BundleError>>()?;
        Ok(Self { bundles, signed, dir })
    }
}

fn signed(statement: Statement) -> Signed {
    let word =
        |word: bundle::Succession| Succession { from: word.from.into(), to: word.to.into(), signature: word.sig };
    Signed {
        manifest: statement.manifest,
        key: statement.signature.keyid.into(),
        signature: statement.signature.sig,
        successions: statement.successions.into_iter().map(word).collect(),
    }
}

impl Parts for BundleParts {
    fn list(&self, version: KubernetesVersion) -> Vec<Part> {
        let Some(bundle) = self.bundles.of(version) else { return Vec::new() };
        let programs = program::ALL.iter().filter_map(|name| bundle.artefact(name));
        programs.chain(IMAGES.iter().filter_map(|name| bundle.image(name))).map(part).collect()
    }

    fn signed(&self, version: KubernetesVersion) -> Option<Signed> {
        self.signed.get(&version).cloned()
    }

    fn open(&self, sha256: &str) -> std::io::Result<File> {
        let found = self.bundles.iter().find_map(|(_, bundle)| Some(bundle.path(bundle.by_sha256(sha256)?)));
        File::open(found.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?)
    }

    fn keep_dir(&self) -> PathBuf {
        self.dir.clone()
    }
}

fn part(artefact: &Artefact) -> Part {
    Part {
        name: artefact.name.clone(),
        kind: if artefact.kind == Kind::Image { PartKind::Image } else { PartKind::Binary },
        version: artefact.version.clone(),
        sha256: artefact.sha256.clone(),
        size: artefact.size,
        image: artefact.image.clone().unwrap_or_default(),
    }
}
