//! Which images a bundle has and what lies in them.
//!
//! Each is one program (etcd: three) with `/etc/passwd`, `/etc/group` and `/tmp`: nothing else to patch, nothing to
//! exec into. The exception is `busybox`, from Debian's static build: storage provisioning needs `sh`, `mkdir` and
//! `rm`, and people need something to try a cluster with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::catalog::ImageRecipe;
use crate::error::At;
use crate::manifest::{Artefact, arch};
use crate::oci::{Entry, Image};
use crate::{BundleError, Result, elf};

/// The registry name of every image; nothing answers there, the images are imported.
const REGISTRY: &str = "pilothouse.local";

const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\n\
    nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n\
    nobody:x:65534:65534:nobody:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnonroot:x:65532:\nnobody:x:65534:\n";
const NSSWITCH: &str = "hosts: files dns\n";

/// Names under which busybox is called: enough for storage helpers, `kubectl cp` (tar) and trying a cluster out.
const APPLETS: &str = "ash awk base64 basename cat chmod chown cp cut date dd df dirname du echo env expr false find free \
    grep gunzip gzip head hostname httpd id ifconfig ip kill ln ls md5sum mkdir mktemp more mount mv nc netstat \
    nslookup nproc ping ping6 printf ps pwd readlink realpath rm rmdir route sed seq sh sha256sum sleep sort stat \
    sync tail tar tee telnet test time timeout top touch tr traceroute true umount uname uniq uptime vi watch wc wget \
    which whoami xargs yes zcat";

/// `pilothouse.local/etcd:3.6.16`.
pub(crate) fn reference(name: &str, version: &str) -> String {
    format!("{REGISTRY}/{name}:{version}")
}

/// The image of a recipe, from programs of the cache in the order of its `files`.
pub(crate) fn component(recipe: &ImageRecipe, cache: &Cache, programs: &[&Artefact]) -> Image {
    let mut entries = base();
    for dir in ["usr", "usr/local", "usr/local/bin"] {
        entries.insert(dir.to_owned(), Entry::Dir(0o755));
    }
    for (name, program) in recipe.files.iter().zip(programs) {
        let entry = Entry::Program(cache.blob(&program.sha256), program.sha256.clone());
        entries.insert(format!("usr/local/bin/{name}"), entry);
    }
    let entrypoint = recipe.files.first().map(|name| format!("/usr/local/bin/{name}")).into_iter().collect();
    let reference =
        reference(&recipe.name, programs.first().map(|program| program.version.as_str()).unwrap_or_default());
    Image { reference, arch: arch(), entrypoint, command: Vec::new(), user: recipe.user.clone(), entries }
}

/// The busybox image: one program with many names.
pub(crate) fn busybox(version: &str, program: &Path, sha256: &str) -> Image {
    let mut entries = base();
    entries.insert("bin".to_owned(), Entry::Dir(0o755));
    entries.insert("bin/busybox".to_owned(), Entry::Program(program.to_owned(), sha256.to_owned()));
    for applet in APPLETS.split_whitespace() {
        entries.insert(format!("bin/{applet}"), Entry::Link("busybox".to_owned()));
    }
    let reference = reference("busybox", version);
    // A command, not an entrypoint: `kubectl run … -- sleep 60` then runs sleep, not sh.
    let command = vec!["sh".to_owned()];
    Image { reference, arch: arch(), entrypoint: Vec::new(), command, user: "0:0".to_owned(), entries }
}

fn base() -> BTreeMap<String, Entry> {
    BTreeMap::from([
        ("etc".to_owned(), Entry::Dir(0o755)),
        ("etc/group".to_owned(), Entry::Text(0o644, GROUP.to_owned())),
        ("etc/nsswitch.conf".to_owned(), Entry::Text(0o644, NSSWITCH.to_owned())),
        ("etc/passwd".to_owned(), Entry::Text(0o644, PASSWD.to_owned())),
        ("tmp".to_owned(), Entry::Dir(0o1777)),
    ])
}

/// This machine's static busybox and its version.
pub(crate) async fn find_busybox() -> Result<(PathBuf, String)> {
    const HINT: &str = "install it with `apt-get install -y busybox-static`";
    let path = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.is_file());
    let path = path.ok_or_else(|| BundleError::Tool { tool: "busybox", hint: HINT.to_owned() })?;
    if !elf::is_static(&path).at("read", &path)? {
        return Err(BundleError::NotStatic { path, hint: HINT });
    }
    let text = crate::command::output(tokio::process::Command::new(&path), "ask busybox for its version").await?;
    Ok((path, banner_version(&text)))
}

/// `1.35.0` of `BusyBox v1.35.0 (Debian 1:1.35.0-4) multi-call binary.`
fn banner_version(text: &str) -> String {
    let word = text.split_whitespace().nth(1).unwrap_or_default();
    let version: String =
        word.trim_start_matches('v').chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    if version.is_empty() { "0".to_owned() } else { version }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busybox_version_is_read_from_its_banner() {
        assert_eq!(banner_version("BusyBox v1.35.0 (Debian 1:1.35.0-4+deb12u1) multi-call binary.\n"), "1.35.0");
        assert_eq!(banner_version(""), "0");
    }

    #[tokio::test]
    async fn every_applet_exists() {
        let Ok((path, _)) = find_busybox().await else { return };
        let mut command = tokio::process::Command::new(path);
        command.arg("--list");
        let list = crate::command::output(command, "list").await.unwrap();
        let missing: Vec<_> =
            APPLETS.split_whitespace().filter(|name| !list.lines().any(|line| line == *name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn the_first_file_is_the_entrypoint() {
        let recipe =
            ImageRecipe { name: "etcd".into(), files: vec!["etcd".into(), "etcdctl".into()], user: "1:1".into() };
        let program = |name| {
            let stored = crate::cache::Stored { sha256: "00".to_owned(), size: 1 };
            Artefact::stored(name, crate::manifest::Kind::Binary, "3.6.16", String::new(), &stored)
        };
        let image = component(&recipe, &Cache::new("/c"), &[&program("etcd"), &program("etcdctl")]);
        assert_eq!(image.reference, "pilothouse.local/etcd:3.6.16");
        assert_eq!(image.entrypoint, ["/usr/local/bin/etcd"]);
        assert!(image.entries.contains_key("usr/local/bin/etcdctl"));
    }
}
