//! What a bundle is made of: the table in `data/catalog.toml` with the version filled in, and the locks beside it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::cache::key;
use crate::manifest::{Kind, Manifest, arch};
use crate::{BundleError, Result, Version};

const TABLE: &str = include_str!("../data/catalog.toml");

macro_rules! lock {
    ($name:literal) => {
        Lock {
            name: $name,
            modules: include_str!(concat!("../data/locks/", $name, ".mod")),
            sums: include_str!(concat!("../data/locks/", $name, ".sum")),
        }
    };
}

const LOCKS: [Lock; 9] = [
    lock!("pause"),
    lock!("cni"),
    lock!("runc"),
    lock!("etcd"),
    lock!("containerd"),
    lock!("kubernetes-1.36.3"),
    lock!("kubernetes-1.35.4"),
    lock!("local-path"),
    lock!("coredns"),
];

const SOURCES: [(&str, &str); 1] = [("pause.go", include_str!("../data/pause.go"))];

/// A Go module graph, to the hash: the text of a `go.mod` and its `go.sum`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lock {
    name: &'static str,
    pub(crate) modules: &'static str,
    pub(crate) sums: &'static str,
}

impl Lock {
    /// The least Go version the graph asks for, `1.26.0`.
    pub(crate) fn go(&self) -> &'static str {
        self.modules.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or_default().trim()
    }
}

/// A set of programs from one Go module graph.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) lock: String,
    pub(crate) version: String,
    pub(crate) cold_mib: u64,
    pub(crate) size_mib: u64,
    #[serde(default)]
    pub(crate) cgo: bool,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    #[serde(default)]
    pub(crate) stamps: BTreeMap<String, String>,
    #[serde(default)]
    main: Option<String>,
    pub(crate) binaries: Vec<Program>,
}

/// One program: its name in the bundle and its Go package.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) package: String,
}

/// One image made of programs of the bundle.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageRecipe {
    pub(crate) name: String,
    pub(crate) files: Vec<String>,
    pub(crate) user: String,
}

/// The whole table for one Kubernetes version.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Catalog {
    #[serde(rename = "group")]
    pub(crate) groups: Vec<Group>,
    #[serde(rename = "image")]
    pub(crate) images: Vec<ImageRecipe>,
}

/// A program with the group it belongs to.
pub(crate) type Entry<'a> = (&'a Group, &'a Program);

impl Catalog {
    /// The table with every placeholder filled in.
    pub(crate) fn load(version: Version) -> Result<Catalog> {
        let (major, minor) = version.minor();
        let text = TABLE.replace("{kubernetes}", version.as_str()).replace("{major}", major).replace("{minor}", minor);
        let mut catalog: Catalog = toml::from_str(&text).map_err(|error| malformed(error.message()))?;
        for group in &mut catalog.groups {
            for value in group.stamps.values_mut() {
                *value = value.replace("{version}", &group.version);
            }
            group.lock()?;
        }
        Ok(catalog)
    }

    /// Every program with the group it belongs to, in build order.
    pub(crate) fn programs(&self) -> impl Iterator<Item = Entry<'_>> {
        self.groups.iter().flat_map(|group| group.binaries.iter().map(move |program| (group, program)))
    }

    /// Whether a manifest has every program and image, each in the catalog's own version.
    pub(crate) fn is_in(&self, manifest: &Manifest) -> bool {
        let has = |kind, name: &str, version: Option<&str>| {
            let mut parts = manifest.artefacts.iter().filter(|part| part.kind == kind && part.name == name);
            parts.any(|part| version.is_none_or(|version| part.version == version))
        };
        self.programs().all(|(group, program)| has(Kind::Binary, &program.name, Some(&group.version)))
            && self.images.iter().all(|image| has(Kind::Image, &image.name, None))
            && manifest.arch == arch()
    }

    /// Names everything that goes into a bundle but the toolchain: catalog, module graphs, own sources, packing.
    pub(crate) fn recipe(&self, packing: &str) -> Result<String> {
        let mut parts = vec![packing, arch(), TABLE];
        for group in &self.groups {
            let lock = group.lock()?;
            parts.extend([lock.modules, lock.sums, group.version.as_str(), group.main().unwrap_or_default()]);
        }
        Ok(key(&parts))
    }
}

impl Group {
    /// The pinned module graph.
    pub(crate) fn lock(&self) -> Result<Lock> {
        LOCKS
            .into_iter()
            .find(|lock| lock.name == self.lock)
            .ok_or_else(|| malformed(&format!("no lock `{}`", self.lock)))
    }

    /// The text of the group's own `main.go`, for a program that is ours.
    pub(crate) fn main(&self) -> Option<&'static str> {
        let name = self.main.as_deref()?;
        SOURCES.iter().find(|(file, _)| *file == name).map(|(_, text)| *text)
    }
}

fn malformed(reason: &str) -> BundleError {
    BundleError::Table { path: PathBuf::from("data/catalog.toml"), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_has_a_whole_catalogue() {
        for version in Version::known() {
            let catalog = Catalog::load(version).unwrap();
            let names: Vec<_> = catalog.programs().map(|(_, program)| program.name.as_str()).collect();
            for image in &catalog.images {
                assert!(image.files.iter().all(|file| names.contains(&file.as_str())), "{image:?}");
            }
            let kubernetes = catalog.groups.iter().find(|group| group.name == "kubernetes").unwrap();
            assert_eq!(kubernetes.version, version.as_str());
            let staging = version.as_str().replacen('1', "v0", 1);
            assert!(
                kubernetes.lock().unwrap().modules.contains(&format!("k8s.io/kubelet => k8s.io/kubelet {staging}"))
            );
            assert_eq!(kubernetes.stamps["k8s.io/component-base/version.gitVersion"], format!("v{version}"));
        }
    }

    #[test]
    fn locks_hold_every_tool_and_a_go_version() {
        for (group, program) in Catalog::load(Version::default()).unwrap().programs() {
            let lock = group.lock().unwrap();
            assert!(lock.go().starts_with("1."), "{}", group.name);
            assert!(group.main().is_some() || lock.modules.contains(&program.package), "{}", program.name);
        }
    }
}
