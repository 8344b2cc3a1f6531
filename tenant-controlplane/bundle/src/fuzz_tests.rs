//! Changed lists, signatures and archives.

use std::fs;

use sha2::{Digest, Sha256};

use super::*;
use crate::cache::hex;
use crate::keys::Keys;
use crate::signature::{BUNDLE, SigningKey};

#[path = "../../../tests/support/fuzz.rs"]
mod fuzz;

/// The key of the agent's and the signature's tests: a failure shall come again.
fn signer() -> SigningKey {
    let golden = include_str!("../../../node-bootstrap/src/signature_golden.json");
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    SigningKey::parse(golden["old_key"].as_str().unwrap()).unwrap()
}

fn contents() -> Vec<(Artefact, Vec<u8>)> {
    let parts = [("kubelet", Kind::Binary), ("coredns", Kind::Image), ("pilothouse-node", Kind::Agent)];
    let part = |(name, kind): (&str, Kind)| {
        let bytes = name.repeat(20).into_bytes();
        let sha256 = hex(Sha256::new_with_prefix(&bytes));
        let (name, version, source) = (name.to_owned(), "1.0".to_owned(), "bundle".to_owned());
        let image = (kind == Kind::Image).then(|| "pilothouse.local/coredns:1.0".to_owned());
        let (size, file) = (bytes.len() as u64, format!("sha256/{sha256}"));
        (Artefact { name, kind, version, sha256, size, source, file, image }, bytes)
    };
    parts.map(part).into()
}

fn list() -> Manifest {
    Manifest::new("1.36.3", contents().into_iter().map(|(artefact, _)| artefact).collect())
}

fn signatures(list: &str) -> String {
    Envelope::of_bundle(vec![signer().sign(BUNDLE, list.as_bytes())]).to_json()
}

fn tar(list: &str, signatures: &str) -> Vec<u8> {
    let mut out = Builder::new(Vec::new());
    for (name, text) in [(FILE, list), (SIGNATURE, signatures)] {
        append(&mut out, name, text.len() as u64, DATA, text.as_bytes()).unwrap();
    }
    for (artefact, bytes) in contents() {
        append(&mut out, &artefact.file, artefact.size, DATA, bytes.as_slice()).unwrap();
    }
    out.into_inner().unwrap()
}

#[test]
fn a_list_of_any_text() {
    let list = list().to_json();
    let corpus = [list.clone().into_bytes(), signatures(&list).into_bytes()];
    fuzz::run("bundle list", &corpus, |input| {
        let text = String::from_utf8_lossy(input);
        drop(Envelope::parse_bundle(&text));
        let Ok(list) = Manifest::parse(&text) else { return };
        for artefact in &list.artefacts {
            let digest = artefact.file.strip_prefix("sha256/").unwrap();
            assert!(is_digest(digest), "every path lies in the store: {}", artefact.file);
            assert!(!artefact.name.contains(['/', '\n']) && !list.kubernetes.contains(['/', '\n']));
        }
        assert_eq!(Manifest::parse(&list.to_json()).as_ref(), Ok(&list));
    });
}

#[test]
fn an_archive_of_any_bytes() {
    let (list, signer) = (list(), signer().public());
    let good = tar(&list.to_json(), &signatures(&list.to_json()));
    let corpus = [good.clone(), tar(&list.to_json(), "{}"), good[..1024].to_vec()];
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::with_keys(dir.path().join("cache"), Keys::new(dir.path().join("keys")));
    let tmp = cache.scratch().parent().unwrap().to_owned();
    fs::create_dir_all(&tmp).unwrap();
    let import = |input: &[u8]| {
        let mut import =
            Import { cache: &cache, from: Path::new("archive"), trust: &[signer], report: &|_| {}, staged: Vec::new() };
        import.run(&mut Archive::new(input))
    };
    assert_eq!(import(&good).unwrap(), list);
    fuzz::run("bundle archive", &corpus, |input| {
        if let Ok(imported) = import(input) {
            assert_eq!(imported, list, "nothing is believed but what was signed");
        }
        assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0, "nothing is left");
    });
}
