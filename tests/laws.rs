//! The dependency law of ARCHITECTURE.md, read off cargo's own metadata.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by stopping there")]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Crate → what it must never depend on directly. Names of our crates and of others' alike.
const NEVER: [(&str, &[&str]); 11] = [
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
            "node-protocol",
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
            "node-protocol",
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

fn direct() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output =
        Command::new(cargo).args(["metadata", "--no-deps", "--format-version", "1", "--offline"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
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
fn no_crate_is_called_common() {
    for name in direct().keys() {
        assert!(!["common", "utils", "util", "shared", "helpers"].contains(&name.as_str()));
    }
}
