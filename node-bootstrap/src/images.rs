//! Images from the bundle, imported before anybody asks: no image pull stands between boot and Ready.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt};
use node_linux::files::{self, FileError};
use node_linux::tool::{ToolError, run};

use crate::arrivals::Arrivals;
use crate::spec::{Image, NodeSpec};

/// Keeps kubelet's image garbage collection away from what could not be pulled again.
const PINNED: &str = "io.cri-containerd.pinned=pinned";

/// An image that could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// `ctr` could not be started, or refused.
    #[error(transparent)]
    Ctr(#[from] ToolError),
    /// The archive holds another reference than promised.
    #[error("import {archive}: it does not hold image {reference}")]
    OtherReference {
        /// The archive.
        archive: PathBuf,
        /// What was promised.
        reference: String,
    },
    /// The record of imports could not be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Imports into one containerd. Every call of `ctr` costs a second on a slow machine, so there are as few as can be.
#[derive(Debug)]
pub struct Importer {
    ctr: PathBuf,
    socket: PathBuf,
    record: PathBuf,
    present: Vec<String>,
    imported: Mutex<BTreeMap<String, String>>,
}

impl Importer {
    /// Asks containerd what it still has of what was imported.
    pub async fn new(spec: &NodeSpec) -> Result<Self, ImageError> {
        let layout = &spec.layout;
        let record = layout.etc.join("images.json");
        let imported: BTreeMap<String, String> = files::read_json(&record)?.unwrap_or_default();
        let (ctr, socket) = (layout.program("ctr"), layout.containerd_socket());
        let ask = !imported.is_empty();
        let mut importer = Self { ctr, socket, record, present: Vec::new(), imported: Mutex::new(imported) };
        if ask {
            importer.present = importer.ctr(&["ls", "-q"]).await?.lines().map(str::to_owned).collect();
        }
        Ok(importer)
    }

    fn imported(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.imported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when this very archive was imported and is still there.
    pub fn has(&self, image: &Image) -> bool {
        let same = self.imported().get(&image.reference).is_some_and(|sha256| *sha256 == image.sha256);
        same && self.present.contains(&image.reference)
    }

    /// Imports an image unless it is there, and keeps it from being collected. The sandbox image is pinned by containerd itself.
    pub async fn ensure(&self, image: &Image, sandbox: bool) -> Result<(), ImageError> {
        if self.has(image) {
            return Ok(());
        }
        let said = self.ctr(&["import", &image.archive.to_string_lossy()]).await?;
        if !said.contains(&image.reference)
            && !self.ctr(&["ls", "-q"]).await?.lines().any(|line| line == image.reference)
        {
            let (archive, reference) = (image.archive.clone(), image.reference.clone());
            return Err(ImageError::OtherReference { archive, reference });
        }
        if !sandbox {
            self.ctr(&["label", &image.reference, PINNED]).await?;
        }
        tracing::info!(image = image.reference, "imported");
        let mut imported = self.imported();
        imported.insert(image.reference.clone(), image.sha256.clone());
        Ok(files::write_json(&self.record, &*imported, 0o644)?)
    }

    /// Imports several images as they arrive, two at a time.
    pub async fn ensure_all(&self, images: &[&Image], arrivals: &Arrivals) -> Result<(), ImageError> {
        let each = futures::stream::iter(images).map(async |image| {
            arrivals.of(|name| name == image.name).await;
            self.ensure(image, false).await
        });
        each.buffer_unordered(2).try_collect().await
    }

    async fn ctr(&self, args: &[&str]) -> Result<String, ImageError> {
        let (ctr, socket) = (self.ctr.to_string_lossy(), self.socket.to_string_lossy());
        let images = [&*ctr, "--address", &*socket, "--namespace", "k8s.io", "images"];
        Ok(run(&[&images[..], args].concat()).await?)
    }
}

/// The sandbox image, without which no pod starts, and the others.
pub fn split<'a>(images: &'a [Image], sandbox: &str) -> (Vec<&'a Image>, Vec<&'a Image>) {
    images.iter().partition(|image| image.reference == sandbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_image_is_set_apart() {
        let image = |reference: &str| Image {
            name: reference.into(),
            reference: reference.into(),
            archive: "/nonexistent".into(),
            sha256: String::new(),
        };
        let images = [image("coredns"), image("pause"), image("etcd")];
        let (sandbox, others) = split(&images, "pause");
        assert_eq!((sandbox[0].reference.as_str(), others.len()), ("pause", 2));
    }
}
