//! Attacks by somebody who can write to the cache while a bundle is built: nothing of his comes out and is signed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bundle::{BuildOptions, Bundle, BundleError, Progress, Source, Version};

use crate::setup::{PLUGINS, Setup, content, setup, sha256};

/// A toolchain that writes down how it was called, and what is written to the cache the moment it is done.
const GO: &str = r#"#!/bin/sh
if [ "$1" = env ]; then
  printf 'go1.99.0\nhttps://proxy.invalid\n/the/persons/modules\n'
  exit
fi
if [ -e LOG/fail ]; then
  echo 'verifying module: checksum mismatch' >&2
  exit 1
fi
while [ "$1" != -o ]; do shift; done
printf built > "$2"
{ echo "OUT=$2"; echo "CWD=$PWD"; echo "SOURCE=$PWD/main.go"; env; } > LOG/called
stat -c %a%u "$HOME/.." > LOG/mode
mkdir -p "$GOMODCACHE/cache/download/example.org/m/@v"
echo zip > "$GOMODCACHE/cache/download/example.org/m/@v/v1.0.0.zip"
find @CACHE@/work @CACHE@/tmp -type f | while read -r file; do printf evil > "$file"; done
"#;

fn with_go(setup: &Setup) -> (BuildOptions, PathBuf) {
    let (go, log, build_dir) = (setup.dir.path().join("go"), setup.dir.path().join("log"), setup.dir.path().join("b"));
    for dir in [&log, &build_dir] {
        fs::create_dir(dir).unwrap();
    }
    let cache = setup.cache("cache").dir().display().to_string();
    fs::write(&go, GO.replace("LOG", &log.display().to_string()).replace("@CACHE@", &cache)).unwrap();
    fs::set_permissions(&go, fs::Permissions::from_mode(0o755)).unwrap();
    let mut opts = setup.options(Source::Release);
    opts.go = Some(go);
    opts.build_dir = build_dir;
    opts.free_space = std::sync::Arc::new(|_| Ok(u64::MAX));
    (opts, log)
}

#[tokio::test]
async fn programs_are_compiled_outside_the_cache_in_a_directory_that_is_ours_alone() {
    let setup = setup().await;
    setup.unpin("pause");
    let (opts, log) = with_go(&setup);
    let bundle = Bundle::build(&opts, &|_| {}).await.unwrap();
    assert_eq!(fs::read(bundle.program("pause").unwrap()).unwrap(), b"built", "not what was written to the cache");
    assert_eq!(bundle.artefact("pause").unwrap().sha256, sha256(b"built"));
    let called = fs::read_to_string(log.join("called")).unwrap();
    let of = |name: &str| called.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap();
    let own = opts.build_dir.join("pilothouse-build-").display().to_string();
    for name in ["OUT", "CWD", "SOURCE", "HOME", "GOCACHE", "GOMODCACHE", "GOPATH", "GOTMPDIR", "TMPDIR"] {
        assert!(of(name).starts_with(&own), "{name}: {}", of(name));
    }
    let kept = opts.cache.dir().join("work/modules");
    let proxies = format!("file://{},file:///the/persons/modules/cache/download,https://proxy.invalid", kept.display());
    assert_eq!((of("GOPROXY"), of("GOENV"), of("GOTOOLCHAIN")), (proxies.as_str(), "off", "local"));
    let me = nix::unistd::Uid::effective();
    assert_eq!(fs::read_to_string(log.join("mode")).unwrap().trim(), format!("700{me}"));
    assert_eq!(fs::read_dir(&opts.build_dir).unwrap().count(), 0, "gone");

    // What was downloaded is kept; where it is not what its pin says, the next build fetches it anew.
    let module = kept.join("example.org/m/@v/v1.0.0.zip");
    assert_eq!(fs::read(&module).unwrap(), b"zip\n");
    fs::remove_dir_all(opts.cache.dir().join("done")).unwrap();
    fs::write(log.join("fail"), "").unwrap();
    Bundle::build(&opts, &|_| {}).await.unwrap_err();
    assert!(!module.exists());
}

#[tokio::test]
async fn a_place_to_build_in_that_others_may_change_is_refused_before_anything_is_fetched() {
    let setup = setup().await;
    setup.unpin("pause");
    let (opts, _) = with_go(&setup);
    fs::set_permissions(&opts.build_dir, fs::Permissions::from_mode(0o777)).unwrap();
    let error = Bundle::build(&opts, &|_| {}).await.unwrap_err();
    assert!(matches!(&error, BundleError::UnsafeBuild { path, .. } if *path == opts.build_dir), "{error}");
    assert!(error.to_string().ends_with("run `chmod go-w` on it, or name another place by TMPDIR"), "{error}");
    assert_eq!(setup.server.hits("/bin/runc"), 0);
}

fn evil_archive() -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for name in PLUGINS {
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        out.append_data(&mut header, format!("./{name}"), &b"evil"[..]).unwrap();
    }
    out.into_inner().unwrap()
}

/// Once something of this name is done, all files of a folder of the cache become these.
fn overwriting<'a>(done: &'a str, dir: &'a Path, bytes: &'a [u8]) -> impl Fn(Progress) + Send + Sync + 'a {
    move |progress| {
        if matches!(&progress, Progress::Done { name, .. } if name == done) {
            for path in fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()) {
                fs::remove_file(&path).unwrap();
                fs::write(&path, bytes).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_download_that_is_changed_after_it_was_proven_is_not_unpacked() {
    let setup = setup().await;
    let (opts, evil) = (setup.options(Source::Release), evil_archive());
    let downloads = opts.cache.dir().join("downloads");
    let bundle = Bundle::build(&opts, &overwriting("ptp", &downloads, &evil)).await.unwrap();
    for name in PLUGINS {
        assert_eq!(bundle.artefact(name).unwrap().sha256, sha256(&content(name)), "{name}");
    }
}

#[tokio::test]
async fn a_program_that_is_changed_after_it_was_proven_gets_into_no_image() {
    let setup = setup().await;
    let opts = setup.options(Source::Release);
    let blobs = opts.cache.blobs();
    // The last of the programs: what follows are the images.
    let error = Bundle::build(&opts, &overwriting("coredns", &blobs, b"evil")).await.unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("was changed while it was packed: find out who can write to it"), "{error}: {why}");
    assert!(matches!(Bundle::open(&opts.cache, Version::default()), Err(BundleError::NotBuilt { .. })));
}

#[tokio::test]
async fn an_agent_that_is_changed_after_it_was_proven_is_not_signed() {
    let setup = setup().await;
    let mut opts = setup.options(Source::Release);
    let proven = opts.cache.blob(&sha256(b"what was proven"));
    fs::create_dir_all(opts.cache.blobs()).unwrap();
    fs::copy("/bin/busybox", &proven).unwrap();
    opts.agent = bundle::AgentSource::Path(proven.clone());
    let error = Bundle::build(&opts, &|_| {}).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("checksum of pilothouse-node from {} is wrong", proven.display())), "{error}");
    assert!(matches!(Bundle::open(&opts.cache, Version::default()), Err(BundleError::NotBuilt { .. })));
}
