//! Images of the other Kubernetes versions for the host's node. They come once the node is ready, so that nothing waits for them but
//! the clusters that need them; the agent itself brings those of the host's own version.

use std::collections::BTreeMap;

use crate::error::{DuringStep, Result};
use bundle::{Artefact, Bundle};
use node_linux::tool::run;

use crate::site::Site;
use node_linux::files::write_public;

/// What a control plane consists of.
const IMAGES: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// Keeps kubelet's image garbage collection away from what could not be pulled again.
const PINNED: &str = "io.cri-containerd.pinned=pinned";

/// Brings the images of `bundle` that are not on the node yet.
pub async fn load(site: &Site, own: &Bundle, bundle: &Bundle) -> Result<()> {
    let ctr = own.program("ctr")?.display().to_string();
    let socket = site.run_dir().join("n/containerd.sock").display().to_string();
    let images = [ctr.as_str(), "--address", &socket, "--namespace", "k8s.io", "images"];
    let there = run(&[&images[..], &["ls", "-q"]].concat()).await.during("ask containerd for its images")?;
    let file = site.path("host/images.json");
    let mut brought: BTreeMap<String, String> =
        std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    for name in IMAGES {
        let image =
            bundle.image(name).during_step(|| format!("{} has no image {name}: build it again", bundle.id()))?;
        let reference = image.image.clone().unwrap_or_default();
        if own.image_ref(name).is_ok_and(|known| known == reference) || is_there(&there, image, &brought) {
            continue;
        }
        let archive = bundle.path(image).display().to_string();
        run(&[&images[..], &["import", &archive]].concat()).await.during_step(|| format!("import {reference}"))?;
        run(&[&images[..], &["label", &reference, PINNED]].concat()).await?;
        brought.insert(reference, image.sha256.clone());
        write_public(&file, &serde_json::to_vec(&brought)?)?;
    }
    Ok(())
}

/// Whether this very archive was brought before and is still there.
fn is_there(listed: &str, image: &Artefact, brought: &BTreeMap<String, String>) -> bool {
    let Some(reference) = &image.image else { return false };
    listed.lines().any(|line| line == reference) && brought.get(reference) == Some(&image.sha256)
}
