//! The versions of Kubernetes a platform offers, and the images of each.

use std::collections::BTreeMap;

use anyhow::Result;
use bundle::Bundle;
use provisioner::Release;
use tenant_controlplane::render::Images;
use tenant_controlplane::version::KubernetesVersion;

use crate::components::Bundles;

/// What clusters of each version are made of. The embedded host has the images of its own version once it is ready, those of the
/// others later; on somebody else's host all count as there.
pub fn of(bundles: &Bundles, embedded: bool) -> Result<BTreeMap<KubernetesVersion, Release>> {
    let each = bundles.iter().map(|(version, bundle)| {
        let loaded = !embedded || version == KubernetesVersion::default();
        Ok((version, release(bundle, loaded)?))
    });
    each.collect()
}

fn release(bundle: &Bundle, loaded: bool) -> Result<Release> {
    let image = |name: &str| -> Result<String> { Ok(bundle.image_ref(name)?.to_owned()) };
    let images = Images {
        apiserver: image("kube-apiserver")?,
        controller_manager: image("kube-controller-manager")?,
        scheduler: image("kube-scheduler")?,
        etcd: image("etcd")?,
    };
    Ok(Release { images, coredns_image: image("coredns")?, loaded })
}
