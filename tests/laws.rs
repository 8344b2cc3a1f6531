//! The laws of ARCHITECTURE.md: who may depend on whom, read off cargo's own metadata, and what every source file keeps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by stopping there")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Crate → what it must never depend on directly. Names of our crates and of others' alike.
const NEVER: [(&str, &[&str]); 12] = [
    (
        "tenant-controlplane",
        &[
            "tokio",
            "kube",
            "sea-orm",
            "migrations",
            "portal",
            "provisioner",
            "gateway",
            "bundle",
            "cloud-providers",
            "reqwest",
        ],
    ),
    (
        "gateway",
        &[
            "tenant-controlplane",
            "migrations",
            "portal",
            "provisioner",
            "kube",
            "sea-orm",
            "node-bootstrap",
            "cloud-providers",
        ],
    ),
    (
        "bundle",
        &[
            "tenant-controlplane",
            "migrations",
            "portal",
            "provisioner",
            "kube",
            "sea-orm",
            "node-bootstrap",
            "cloud-providers",
        ],
    ),
    (
        "node-protocol",
        &[
            "tenant-controlplane",
            "migrations",
            "portal",
            "provisioner",
            "gateway",
            "node-bootstrap",
            "cloud-providers",
            "kube",
        ],
    ),
    (
        "node-linux",
        &[
            "tenant-controlplane",
            "migrations",
            "portal",
            "provisioner",
            "gateway",
            "bundle",
            "node-protocol",
            "node-bootstrap",
            "cloud-providers",
            "kube",
            "sea-orm",
            "tokio",
        ],
    ),
    (
        "node-bootstrap",
        &[
            "tenant-controlplane",
            "migrations",
            "portal",
            "provisioner",
            "gateway",
            "bundle",
            "cloud-providers",
            "kube",
            "sea-orm",
            "axum",
        ],
    ),
    (
        "cloud-providers",
        &["tenant-controlplane", "migrations", "portal", "provisioner", "gateway", "node-bootstrap", "kube", "sea-orm"],
    ),
    (
        "cloud-local",
        &["tenant-controlplane", "migrations", "portal", "provisioner", "gateway", "node-bootstrap", "kube", "sea-orm"],
    ),
    (
        "migrations",
        &[
            "portal",
            "provisioner",
            "gateway",
            "cloud-providers",
            "node-bootstrap",
            "node-protocol",
            "axum",
            "kube",
            "tonic",
        ],
    ),
    (
        "portal",
        &[
            "provisioner",
            "gateway",
            "cloud-providers",
            "cloud-local",
            "node-bootstrap",
            "kube",
            "k8s-openapi",
            "sea-orm",
            "sqlx",
        ],
    ),
    (
        "cli",
        &["portal", "provisioner", "migrations", "gateway", "cloud-providers", "node-bootstrap", "kube", "sea-orm"],
    ),
    ("provisioner", &["portal", "gateway", "bundle", "cloud-local", "node-bootstrap", "sea-orm", "sqlx", "axum"]),
];

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output =
        Command::new(cargo).args(["metadata", "--no-deps", "--format-version", "1", "--offline"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn direct() -> BTreeMap<String, Vec<String>> {
    let metadata = metadata();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let normal = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|one| one["kind"].is_null()).map(|one| text(&one["name"])).collect()
    };
    metadata["packages"].as_array().unwrap().iter().map(|package| (text(&package["name"]), normal(package))).collect()
}

#[test]
fn crates_keep_the_dependency_law() {
    let direct = direct();
    for (name, never) in NEVER {
        let uses = direct.get(name).unwrap_or_else(|| panic!("the law names {name}, which is no crate"));
        let broken: Vec<&String> = uses.iter().filter(|one| never.contains(&one.as_str())).collect();
        assert!(broken.is_empty(), "{name} must not depend on {broken:?}");
    }
}

#[test]
fn only_migrations_speaks_sql_and_only_the_provisioner_and_the_root_speak_kubernetes() {
    for (name, uses) in direct() {
        let may_sql = name == "migrations";
        let may_kube = ["provisioner", "pilothouse"].contains(&name.as_str());
        assert!(may_sql || !uses.iter().any(|one| one.starts_with("sea-orm") || one == "sqlx"), "{name} speaks SQL");
        assert!(may_kube || !uses.contains(&"kube".to_owned()), "{name} speaks Kubernetes");
    }
}

#[test]
fn only_the_agent_and_the_provisioner_speak_the_node_links_grpc() {
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let may = ["node-bootstrap", "provisioner"].contains(&name);
        for protocol in package["dependencies"].as_array().unwrap().iter().filter(|one| one["name"] == "node-protocol")
        {
            let has = protocol["features"].as_array().unwrap().iter().any(|feature| feature == "grpc");
            assert!(has == may, "{name}: node-protocol is names and constants but for those who speak gRPC");
        }
    }
}

#[test]
fn no_crate_is_called_common() {
    for name in direct().keys() {
        assert!(!["common", "utils", "util", "shared", "helpers"].contains(&name.as_str()));
    }
}

/// Lines a source file may have before its tests.
const LONGEST_FILE: usize = 400;

/// Every source file below a directory; what is built or fetched lies elsewhere.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    name == "tests"
        || name == "testing"
        || name.ends_with("_tests")
        || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn every_file_says_what_it_is_for_and_is_short() {
    let mut all = Vec::new();
    sources(Path::new(env!("CARGO_MANIFEST_DIR")), &mut all);
    assert!(all.len() > 100, "the sources were not found");
    let mut broken = Vec::new();
    for path in all {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        if !text.starts_with("//!") {
            broken.push(format!("{}: begins without a //! line that says what it is for", path.display()));
        }
        if lines > LONGEST_FILE && !is_test(&path) {
            broken.push(format!("{}: {lines} lines, {LONGEST_FILE} are allowed", path.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
