//! Images from the bundle, imported before anybody asks: no image pull stands between boot and Ready.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::files::{self, FileError};
use crate::spec::{Image, NodeSpec};

/// Keeps kubelet's image garbage collection away from what could not be pulled again.
const PINNED: &str = "io.cri-containerd.pinned=pinned";

/// An image that could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// `ctr` could not be started.
    #[error("run ctr")]
    Start(#[source] std::io::Error),
    /// `ctr` refused.
    #[error("ctr images {what}: {said}")]
    Refused {
        /// What was tried.
        what: String,
        /// The last line of what it said.
        said: String,
    },
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

/// Imports into one containerd.
#[derive(Debug)]
pub struct Importer {
    ctr: PathBuf,
    socket: PathBuf,
    record: PathBuf,
    present: Vec<String>,
    imported: BTreeMap<String, String>,
}

impl Importer {
    /// Asks containerd what it has.
    pub async fn new(spec: &NodeSpec) -> Result<Self, ImageError> {
        let layout = &spec.layout;
        let record = layout.etc.join("images.json");
        let imported = files::read_json(&record)?.unwrap_or_default();
        let (ctr, socket) = (layout.program("ctr"), layout.containerd_socket());
        let mut importer = Self { ctr, socket, record, present: Vec::new(), imported };
        importer.look().await?;
        Ok(importer)
    }

    async fn look(&mut self) -> Result<(), ImageError> {
        let listed = self.ctr(&["ls", "-q"]).await?;
        self.present = listed.lines().map(str::to_owned).collect();
        Ok(())
    }

    /// True when this very archive was imported and is still there.
    pub fn has(&self, image: &Image) -> bool {
        let same = self.imported.get(&image.reference).is_some_and(|sha256| *sha256 == image.sha256);
        same && self.present.contains(&image.reference)
    }

    /// Imports an image unless it is there.
    pub async fn ensure(&mut self, image: &Image) -> Result<(), ImageError> {
        if self.has(image) {
            return Ok(());
        }
        let archive = image.archive.to_string_lossy();
        self.ctr(&["import", &archive]).await?;
        self.look().await?;
        if !self.present.contains(&image.reference) {
            let (archive, reference) = (image.archive.clone(), image.reference.clone());
            return Err(ImageError::OtherReference { archive, reference });
        }
        self.ctr(&["label", &image.reference, PINNED]).await?;
        self.imported.insert(image.reference.clone(), image.sha256.clone());
        files::write_json(&self.record, &self.imported, 0o644)?;
        tracing::info!(image = image.reference, "imported");
        Ok(())
    }

    async fn ctr(&self, args: &[&str]) -> Result<String, ImageError> {
        let mut command = Command::new(&self.ctr);
        command.arg("--address").arg(&self.socket).args(["--namespace", "k8s.io", "images"]).args(args);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(ImageError::Start)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason given").to_owned();
        Err(ImageError::Refused { what: args.join(" "), said })
    }
}

/// Puts the sandbox image first: no pod starts without it.
pub fn in_order<'a>(images: &'a [Image], sandbox: &str) -> Vec<&'a Image> {
    let mut ordered: Vec<&Image> = images.iter().collect();
    ordered.sort_by_key(|image| (image.reference != sandbox, size(&image.archive)));
    ordered
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_image_comes_first() {
        let image = |reference: &str| Image {
            name: reference.into(),
            reference: reference.into(),
            archive: "/nonexistent".into(),
            sha256: String::new(),
        };
        let images = [image("coredns"), image("pause"), image("etcd")];
        assert_eq!(in_order(&images, "pause")[0].reference, "pause");
    }
}
