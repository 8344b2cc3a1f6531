//! The image layout read back, byte for byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::cache::digest;

fn image(program: &Path) -> Image {
    let entries = BTreeMap::from([
        ("etc".to_owned(), Entry::Dir(0o755)),
        ("etc/passwd".to_owned(), Entry::Text(0o644, "root:x:0:0::/:/none\n".to_owned())),
        ("bin".to_owned(), Entry::Dir(0o755)),
        ("bin/app".to_owned(), Entry::Program(program.to_owned(), digest(program).unwrap().sha256)),
        ("bin/sh".to_owned(), Entry::Link("app".to_owned())),
    ]);
    Image {
        reference: "pilothouse.local/app:1.2.3".to_owned(),
        arch: "amd64",
        entrypoint: vec!["/bin/app".to_owned()],
        command: Vec::new(),
        user: "65532:65532".to_owned(),
        entries,
    }
}

fn members(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    let mut all = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        all.insert(entry.path().unwrap().display().to_string(), content);
    }
    all
}

fn blob_of<'a>(members: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let content = &members[&format!("blobs/sha256/{digest}")];
    assert_eq!(content.len() as u64, descriptor["size"].as_u64().unwrap());
    assert_eq!(hex(Sha256::new_with_prefix(content)), digest);
    content
}

#[test]
fn the_same_input_makes_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    std::fs::write(&program, vec![7u8; 100_000]).unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    write(&image(&program), &one, &dir.path().join("scratch")).unwrap();
    // Another modification time and name of the input must not show.
    let copy = dir.path().join("copy");
    std::fs::copy(&program, &copy).unwrap();
    write(&image(&copy), &two, &dir.path().join("scratch")).unwrap();
    assert_eq!(digest(&one).unwrap(), digest(&two).unwrap());
    assert!(!dir.path().join("scratch").exists());
}

#[test]
fn every_descriptor_leads_to_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    std::fs::write(&program, b"#!").unwrap();
    let path = dir.path().join("image.tar");
    write(&image(&program), &path, &dir.path().join("scratch")).unwrap();
    let members = members(&path);
    assert!(members.contains_key("oci-layout"));
    let index: Value = serde_json::from_slice(&members["index.json"]).unwrap();
    let entry = &index["manifests"][0];
    assert_eq!(entry["annotations"]["io.containerd.image.name"], "pilothouse.local/app:1.2.3");
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1.2.3");
    let manifest: Value = serde_json::from_slice(blob_of(&members, entry)).unwrap();
    let config: Value = serde_json::from_slice(blob_of(&members, &manifest["config"])).unwrap();
    assert_eq!(config["config"]["Entrypoint"][0], "/bin/app");
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    let mut layer = tar::Archive::new(blob_of(&members, &manifest["layers"][0]));
    let paths: Vec<_> = layer.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(paths, ["bin/", "bin/app", "bin/sh", "etc/", "etc/passwd"]);
}
