//! What nodes fetch: the bundle's parts, as the provisioner asks for them.

use std::fs::File;
use std::sync::Arc;

use bundle::{Artefact, Bundle, Kind};
use provisioner::{Part, Parts};
use tenant_controlplane::version::KubernetesVersion;

/// The programs of a node.
pub const PROGRAMS: [&str; 10] = [
    "kubelet",
    "kube-proxy",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "ptp",
    "host-local",
    "loopback",
    "portmap",
];
/// The images that lie ready on every node: nothing is pulled between a machine's boot and its first pod. Busybox is there to
/// try things out with.
const IMAGES: [&str; 3] = ["pause", "coredns", "busybox"];

/// Parts of one bundle.
pub struct BundleParts(pub Arc<Bundle>);

impl Parts for BundleParts {
    fn list(&self, version: KubernetesVersion) -> Vec<Part> {
        if self.0.manifest().kubernetes != version.to_string() {
            return Vec::new();
        }
        let programs = PROGRAMS.iter().filter_map(|name| self.0.artefact(name));
        programs.chain(IMAGES.iter().filter_map(|name| self.0.image(name))).map(part).collect()
    }

    fn open(&self, sha256: &str) -> std::io::Result<File> {
        let artefact = self.0.by_sha256(sha256).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
        File::open(self.0.path(artefact))
    }
}

fn part(artefact: &Artefact) -> Part {
    Part {
        name: artefact.name.clone(),
        kind: if artefact.kind == Kind::Image { "image".to_owned() } else { "binary".to_owned() },
        version: artefact.version.clone(),
        sha256: artefact.sha256.clone(),
        size: artefact.size,
        image: artefact.image.clone().unwrap_or_default(),
    }
}
