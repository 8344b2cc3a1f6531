//! The laws of ARCHITECTURE.md: who may depend on whom, read off cargo's own metadata, and what every source file keeps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by stopping there")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

mod support;

use support::has_word;

/// Every crate of ours, the crates of ours that it uses, and behind the bar those that only its tests use: no more, and no less.
const OURS: &str = "
    api-types:
    bundle:
    cli: api-types | migrations portal tenant-controlplane
    cloud-local: cloud-providers node-linux
    cloud-providers:
    embedded-host: bundle node-linux node-protocol tenant-controlplane
    gateway: node-protocol
    migrations: tenant-controlplane telemetry
    node-bootstrap: node-linux node-protocol
    node-linux:
    node-protocol:
    pilothouse: bundle cli cloud-local cloud-providers embedded-host gateway migrations node-linux node-protocol portal provisioner telemetry tenant-controlplane
    portal: api-types migrations node-protocol telemetry tenant-controlplane
    provisioner: cloud-providers migrations node-protocol telemetry tenant-controlplane
    telemetry:
    tenant-controlplane: node-protocol
";

/// Crates from elsewhere that stand for something, and the crates of ours that may use them outside of tests: no more, and no less.
const ELSEWHERE: &str = "
    argon2: portal
    askama: portal
    axum: pilothouse portal
    k8s-openapi: embedded-host pilothouse provisioner tenant-controlplane
    kube: embedded-host pilothouse provisioner
    libc: cloud-local
    nix: bundle cli cloud-local embedded-host node-bootstrap node-linux pilothouse
    opentelemetry: telemetry
    sea-orm: migrations
    sqlx: migrations
    tokio: bundle cli cloud-local cloud-providers embedded-host gateway migrations node-bootstrap node-linux pilothouse portal provisioner telemetry
    tonic: node-bootstrap node-protocol provisioner
";

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output =
        Command::new(cargo).args(["metadata", "--no-deps", "--format-version", "1", "--offline"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

type Names = BTreeSet<String>;

fn names(text: &str) -> Names {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The rows of a table above: a name, and the names on either side of the bar.
fn table(text: &str) -> BTreeMap<String, (Names, Names)> {
    let row = |line: &str| {
        let (name, uses) = line.trim().split_once(':').unwrap();
        let (outside, tests) = uses.split_once('|').unwrap_or((uses, ""));
        (name.to_owned(), (names(outside), names(tests)))
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(row).collect()
}

/// Every crate of ours with what it depends on directly, and what its tests alone do.
fn direct() -> BTreeMap<String, (Names, Names)> {
    let metadata = metadata();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let uses = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        let (tests, outside): (Vec<&Value>, Vec<&Value>) = all.partition(|one| one["kind"] == "dev");
        let outside: Names = outside.into_iter().map(name).collect();
        let tests = tests.into_iter().map(name).filter(|one| !outside.contains(one)).collect();
        (outside, tests)
    };
    metadata["packages"].as_array().unwrap().iter().map(|package| (name(package), uses(package))).collect()
}

#[test]
fn crates_use_those_of_ours_that_the_law_says() {
    let direct = direct();
    let ours = |names: &Names| names.iter().filter(|name| direct.contains_key(*name)).cloned().collect::<Names>();
    let found: BTreeMap<_, _> =
        direct.iter().map(|(name, (outside, tests))| (name.clone(), (ours(outside), ours(tests)))).collect();
    assert_eq!(found, table(OURS));
}

#[test]
fn crates_from_elsewhere_are_used_where_the_law_says() {
    let direct = direct();
    for (name, (may, _)) in table(ELSEWHERE) {
        let using: Names =
            direct.iter().filter(|(_, (outside, _))| outside.contains(&name)).map(|(name, _)| name.clone()).collect();
        assert_eq!(using, may, "who uses {name}");
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

/// Used by generated code alone.
const GENERATED: [&str; 1] = ["tonic-prost"];

#[test]
fn every_dependency_is_used() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let dir = |package: &Value| PathBuf::from(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned();
    let dirs: Vec<PathBuf> = packages.iter().map(dir).collect();
    let mut unused = Vec::new();
    for (package, dir) in packages.iter().zip(&dirs) {
        let mut files = Vec::new();
        sources(dir, &mut files);
        // Crates lie in one another.
        let own = |file: &&PathBuf| {
            dirs.iter().filter(|dir| file.starts_with(dir)).max_by_key(|dir| dir.as_os_str().len()) == Some(dir)
        };
        let texts: Vec<String> = files.iter().filter(own).map(|file| std::fs::read_to_string(file).unwrap()).collect();
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            let word = dependency["rename"].as_str().unwrap_or(name).replace('-', "_");
            let is_used = texts.iter().any(|text| has_word(text, &word)) || GENERATED.contains(&name);
            if !is_used {
                unused.push(format!("{}: {name}", package["name"].as_str().unwrap()));
            }
        }
    }
    assert_eq!(unused, Vec::<String>::new());
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

/// Up to where a file's own tests begin.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    lines.windows(2).position(begins).unwrap_or(lines.len())
}

#[test]
fn every_file_says_what_it_is_for_and_is_short() {
    let mut all = Vec::new();
    sources(Path::new(env!("CARGO_MANIFEST_DIR")), &mut all);
    assert!(all.len() > 100, "the sources were not found");
    let mut broken = Vec::new();
    for path in all {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = lines_without_tests(&text);
        if !text.starts_with("//!") {
            broken.push(format!("{}: begins without a //! line that says what it is for", path.display()));
        }
        if lines > LONGEST_FILE && !is_test(&path) {
            broken.push(format!("{}: {lines} lines, {LONGEST_FILE} are allowed", path.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The modules of the provisioner that a file uses by `crate::`.
fn used_modules(text: &str) -> Names {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let name = |rest: &str| rest.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
    code.join("\n").split("crate::").skip(1).map(name).collect()
}

/// The modules at the top of the provisioner, each with those that it uses outside of tests.
fn provisioner_modules() -> BTreeMap<String, Names> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("provisioner/src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut modules = BTreeMap::<String, Names>::new();
    for path in files.iter().filter(|path| !is_test(path) && **path != root.join("lib.rs")) {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.contains("crate::{"), "{}: one `use crate::` a module, or this law misses it", path.display());
        let lines = lines_without_tests(&text);
        let used = used_modules(&text.lines().take(lines).collect::<Vec<_>>().join("\n"));
        let first = path.strip_prefix(&root).unwrap().components().next().unwrap().as_os_str().to_string_lossy();
        modules.entry(first.trim_end_matches(".rs").to_owned()).or_default().extend(used);
    }
    for (name, used) in &mut modules {
        used.remove(name);
    }
    modules
}

#[test]
fn modules_of_the_provisioner_have_no_cycle() {
    let mut left = provisioner_modules();
    assert!(left["reconcilers"].contains("cluster"), "the modules were not read");
    // Whoever uses none of those that are left is in no cycle.
    while let Some(free) = left.iter().find(|(_, used)| used.iter().all(|one| !left.contains_key(one))) {
        let free = free.0.clone();
        left.remove(&free);
    }
    assert!(left.is_empty(), "these use one another, or lead to some that do: {left:#?}");
}

/// Elements that begin a line of their own in a page.
const BLOCKS: [&str; 25] = [
    "article", "caption", "dd", "div", "dl", "dt", "form", "h1", "h2", "h3", "header", "input", "label", "li", "nav",
    "ol", "p", "section", "select", "table", "tbody", "td", "th", "thead", "tr",
];

/// Block elements that begin in one line of a template.
fn blocks(line: &str) -> usize {
    let name = |rest: &str| rest.chars().take_while(char::is_ascii_alphanumeric).collect::<String>();
    line.split('<').skip(1).filter(|rest| BLOCKS.contains(&name(rest).as_str())).count()
}

#[test]
fn every_template_has_one_element_a_line() {
    let mut broken = Vec::new();
    let mut read = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("portal/templates")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        read += 1;
        for (at, line) in text.lines().enumerate().filter(|(_, line)| blocks(line) > 2) {
            broken.push(format!("{}:{}: more than two elements: {line}", path.display(), at + 1));
        }
    }
    assert!(read > 20, "the templates were not found");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The names between backticks in a row of a table, without crate and module.
fn quoted(row: &str) -> impl Iterator<Item = &str> {
    row.split('`').skip(1).step_by(2).map(|name| name.rsplit([' ', ':']).next().unwrap())
}

#[test]
fn every_test_that_keeps_a_promise_of_security_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(root, &mut files);
    let code: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let text = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let promises: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    let tests = promises.iter().flat_map(|row| quoted(row)).filter(|name| name.matches('_').count() > 2);
    let missing: Vec<&str> = tests.filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert_eq!(missing, Vec::<&str>::new());
    let stories =
        promises.iter().flat_map(|row| row.split("story `").skip(1)).filter_map(|rest| rest.split('`').next());
    let unknown = |story: &&str| !["", "attack_"].iter().any(|kind| code.contains(&format!("fn story_{kind}{story}(")));
    assert_eq!(stories.filter(unknown).collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(promises.len() > 40, "the table was not found");
}
