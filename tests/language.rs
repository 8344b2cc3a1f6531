//! The language law: former words of ours do not come back where they were replaced by the standard terms of ARCHITECTURE's glossary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by stopping there")]

use std::path::{Path, PathBuf};

mod support;

use support::has_word;

/// A former word, and the term that replaced it.
const REPLACED: [(&str, &str); 30] = [
    ("artefact", "artifact"),
    ("authorise", "authorize"),
    ("catalogue", "catalog"),
    ("door", "gateway state, client, connection"),
    ("enrol", "enroll"),
    ("enrolment", "enrollment"),
    ("farewell", "reset timeout"),
    ("forbear", "debounce"),
    ("furnish", "install"),
    ("hindrance", "blocking reason, diagnosis"),
    ("honour", "honor"),
    ("leisure", "host idle"),
    ("machinery", "machine observation"),
    ("murmur", "step message"),
    ("nudge", "wake"),
    ("overtake", "supersede"),
    ("rehearsal", "dry run"),
    ("restless", "unsettled"),
    ("sight", "observation"),
    ("stranger", "anonymous, unauthenticated"),
    ("strangers", "anonymous, unauthenticated"),
    ("trouble", "error, problem"),
    ("turn_away", "reject"),
    ("unrest", "unsettled"),
    ("visitor", "inbound connection, page context"),
    ("visitors", "inbound connections"),
    ("wish", "spec, request"),
    ("wished", "desired, requested"),
    ("wishes", "specs, requests"),
    ("whose move", "action required by"),
];

/// Folders that speak the standard terms.
const FINISHED: [&str; 7] =
    ["portal", "provisioner", "migrations", "docs", "tenant-controlplane", "node-bootstrap", "cloud-providers"];

/// Frozen or stable: schema steps as they were applied, and words that programs read.
const ALLOWED: [(&str, &str); 8] = [
    ("ARCHITECTURE.md", "leisure"),
    ("migrations/src/schema/", ""),
    // A field of the signed list.
    ("node-bootstrap/src/signature", "artefact"),
    ("tenant-controlplane/bundle/", "artefact"),
    ("provisioner/embedded-host/src/", "artefact"),
    ("portal/src/api/meta.rs", "catalogue"),
    ("portal/tests/rest/snapshots/", "catalogue"),
    ("tenant-controlplane/gateway/src/counters.rs", "enrolment"),
];

#[test]
fn former_words_do_not_come_back() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    FINISHED.iter().for_each(|folder| collect(&root.join(folder), &mut files));
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap().to_lowercase();
        for (word, term) in REPLACED {
            let allowed =
                ALLOWED.iter().any(|(path, only)| name.starts_with(path) && (only.is_empty() || *only == word));
            if !allowed && has_word(&text, word) {
                found.push(format!("{name}: `{word}`; the term is: {term}"));
            }
        }
    }
    assert!(found.is_empty(), "former words:\n{}", found.join("\n"));
}

/// Every source, page and document under a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|kind| ["rs", "html", "md", "snap"].iter().any(|known| kind == *known)) {
            files.push(path);
        }
    }
}
