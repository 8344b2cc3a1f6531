//! Attacks on a cache and on archives, each with least change: nothing that a trusted key did not sign is opened, built on or
//! imported, and a refused archive leaves everything as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::setup::{Setup, content, setup, sha256};
use bundle::{Bundle, BundleError, Cache, Keys, Progress, Source, Version};

/// What an attacker makes of a kubelet.
fn evil() -> Vec<u8> {
    let mut bytes = content("kubelet");
    bytes[0] ^= 1;
    bytes
}

/// Puts other bytes into the store under their own checksum.
fn store(cache: &Cache, bytes: &[u8]) {
    fs::write(cache.blob(&sha256(bytes)), bytes).unwrap();
}

fn manifest(cache: &Cache, id: &str) -> PathBuf {
    cache.bundles().join(id).join("bundle.json")
}

fn signature(cache: &Cache, id: &str) -> PathBuf {
    cache.bundles().join(id).join("bundle.json.sig")
}

/// A manifest that names other bytes for kubelet, with all sums right.
fn with_evil_kubelet(text: &str) -> String {
    text.replace(&sha256(&content("kubelet")), &sha256(&evil()))
}

/// Another machine's keys over the same caches.
fn other_installation(setup: &Setup, cache: &str) -> Cache {
    Cache::with_keys(setup.dir.path().join(cache), Keys::new(setup.dir.path().join("other")))
}

fn open(cache: &Cache) -> Result<Bundle, BundleError> {
    Bundle::open(cache, Version::default())
}

/// Every file below a directory with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_symlink() {
            all.insert(path.clone(), fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes());
        } else if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

#[tokio::test]
async fn a_cache_that_was_changed_is_refused_with_the_reason_and_mended() {
    let setup = setup().await;
    let bundle = setup.build().await.unwrap();
    let (cache, id, key) = (setup.cache("cache"), bundle.id().to_owned(), bundle.signer());
    let (text, signed) =
        (fs::read_to_string(manifest(&cache, &id)).unwrap(), fs::read_to_string(signature(&cache, &id)).unwrap());
    let other = other_installation(&setup, "cache");
    store(&cache, &evil());
    let by_stranger = {
        // Another installation that may write here signs the changed list itself.
        let theirs = other_installation(&setup, "theirs");
        let mut opts = setup.options(Source::Release);
        opts.cache = theirs.clone();
        let made = Bundle::build(&opts, &|_| {}).await.unwrap();
        fs::read_to_string(signature(&theirs, made.id())).unwrap()
    };
    let attacks: [(&str, String, Option<String>, String); 6] = [
        ("sums made anew", with_evil_kubelet(&text), Some(signed.clone()), format!("is not what {key} signed")),
        ("one word changed", text.replace("amd64", "amd65"), Some(signed.clone()), format!("is not what {key} signed")),
        ("cut off", text[..text.len() / 2].to_owned(), Some(signed.clone()), format!("is not what {key} signed")),
        ("no signature", with_evil_kubelet(&text), None, "has no signature".to_owned()),
        ("an unknown key", text.clone(), Some(by_stranger), format!("is signed by {}", other.keys().own().unwrap())),
        ("half a signature", text.clone(), Some(signed[..signed.len() / 2].to_owned()), "cannot be read".to_owned()),
    ];
    for (attack, list, envelope, reason) in attacks {
        fs::write(manifest(&cache, &id), &list).unwrap();
        match envelope {
            Some(envelope) => fs::write(signature(&cache, &id), envelope).unwrap(),
            None => fs::remove_file(signature(&cache, &id)).unwrap(),
        }
        let error = open(&cache).unwrap_err();
        assert!(matches!(error, BundleError::Signature { .. }), "{attack}: {error}");
        let said = error.to_string();
        assert!(
            said.contains(&reason) && said.contains("pilothouse bundle build --version 1.36.3"),
            "{attack}: {said}"
        );
        // `up` says it too, uses nothing of it and makes it again of what is signed: nothing is fetched.
        let (heard, before) = (Arc::new(Mutex::new(Vec::new())), setup.server.requests());
        let told = heard.clone();
        let report = move |progress: Progress| told.lock().unwrap().push(progress.to_string());
        let mended = Bundle::build(&setup.options(Source::Auto), &report).await.unwrap();
        assert!(heard.lock().unwrap().iter().any(|line| line.contains(&reason)), "{attack}");
        assert_eq!((mended.id(), fs::read_to_string(manifest(&cache, &id)).unwrap()), (id.as_str(), text.clone()));
        assert_eq!(setup.server.requests(), before, "{attack}");
        open(&cache).unwrap().verify(&|_| {}).unwrap();
    }
}

#[tokio::test]
async fn a_signature_serves_for_its_own_list_and_version_only() {
    let setup = setup().await;
    let first = setup.build().await.unwrap();
    let second = first.with_agent(Path::new("/bin/busybox"), &|_| {}).await.unwrap();
    let cache = setup.cache("cache");
    fs::copy(signature(&cache, first.id()), signature(&cache, second.id())).unwrap();
    assert!(open(&cache).unwrap_err().to_string().contains("is not what"), "of another list");
    // The right list with its signature, in the place of another version.
    std::os::unix::fs::symlink(first.id(), cache.bundles().join("1.35.4")).unwrap();
    let error = Bundle::open(&cache, Version::parse("1.35.4").unwrap()).unwrap_err().to_string();
    assert!(error.contains("is of Kubernetes 1.36.3 and stood in the place of another version"), "{error}");
}

#[tokio::test]
async fn what_is_said_to_have_been_built_counts_only_when_signed() {
    let setup = setup().await;
    let bundle = setup.build().await.unwrap();
    let cache = setup.cache("cache");
    drop(bundle);
    // Whoever can write to the cache takes the bundles away and says that building kubelet led to his bytes.
    store(&cache, &evil());
    fs::remove_dir_all(cache.bundles()).unwrap();
    for marker in fs::read_dir(cache.dir().join("done")).unwrap().flatten() {
        let text = fs::read_to_string(marker.path()).unwrap();
        fs::write(marker.path(), with_evil_kubelet(&text)).unwrap();
    }
    let made = setup.build().await.unwrap();
    assert_eq!(made.artefact("kubelet").unwrap().sha256, sha256(&content("kubelet")));
    assert_eq!(setup.server.hits("/bin/kubelet"), 2, "fetched again by its pin");
    assert_eq!(setup.server.hits("/bin/runc"), 1, "what was not touched is kept");
}

#[tokio::test]
async fn nothing_unsigned_is_taken_over_and_up_says_so_and_builds_anew() {
    let setup = setup().await;
    let bundle = setup.build().await.unwrap();
    let (cache, id) = (setup.cache("cache"), bundle.id().to_owned());
    drop(bundle);
    // As an earlier pilothouse left it, or whoever wrote to it before this machine ever signed: all sums are right.
    fs::remove_file(signature(&cache, &id)).unwrap();
    for marker in fs::read_dir(cache.dir().join("done")).unwrap().flatten() {
        let mut value: serde_json::Value = serde_json::from_slice(&fs::read(marker.path()).unwrap()).unwrap();
        value.as_object_mut().unwrap().remove("signatures");
        fs::write(marker.path(), value.to_string()).unwrap();
    }
    let new = other_installation(&setup, "cache");
    let mut opts = setup.options(Source::Auto);
    opts.cache = new.clone();
    opts.go = Some("/nonexistent/go".into());
    let reachable = opts.release.base_url.replace("http://127.0.0.1:9".to_owned());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let told = heard.clone();
    let report = move |progress: Progress| told.lock().unwrap().push(progress.to_string());
    let said = Bundle::build(&opts, &report).await.unwrap_err().to_string();
    assert!(said.contains("no answer from") && said.contains("modules: start /nonexistent/go"), "{said}");
    let why = heard.lock().unwrap().concat();
    assert!(why.contains("has no signature; nothing of it was used"), "{why}");
    assert!(why.contains("pilothouse bundle build --version 1.36.3"), "{why}");
    assert!(open(&new).unwrap_err().to_string().contains("has no signature"));
    // Where there is something to build from, `up` does it.
    opts.release.base_url = reachable;
    let made = Bundle::build(&opts, &|_| {}).await.unwrap();
    assert_eq!((made.id(), made.signer()), (id.as_str(), new.keys().own().unwrap()));
    assert_eq!(setup.server.hits("/bin/kubelet"), 2, "no byte of it was believed");
}

/// The archive with some of its files changed, added or left out.
fn altered(from: &Path, to: &Path, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) {
    let mut out = tar::Builder::new(fs::File::create(to).unwrap());
    for entry in tar::Archive::new(fs::File::open(from).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        let Some(bytes) = change(&name, bytes) else { continue };
        let evil = sha256(&evil());
        let name = if bytes == self::evil() { format!("sha256/{evil}") } else { name };
        let mut header = entry.header().clone();
        header.set_size(bytes.len() as u64);
        out.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    out.finish().unwrap();
}

#[tokio::test]
async fn an_archive_that_no_trusted_key_signed_changes_nothing() {
    let setup = setup().await;
    let (tar, bad) = (setup.dir.path().join("good.tar"), setup.dir.path().join("bad.tar"));
    let bundle = setup.build().await.unwrap();
    bundle.export(&tar, &|_| {}).unwrap();
    let exporter = bundle.signer();
    // Another machine, with a bundle of its own in its cache.
    let target = other_installation(&setup, "target");
    let mut opts = setup.options(Source::Release);
    opts.cache = target.clone();
    let own =
        Bundle::build(&opts, &|_| {}).await.unwrap().with_agent(Path::new("/bin/busybox"), &|_| {}).await.unwrap();
    let before = files(setup.dir.path().join("target").as_path());
    let keys = files(target.keys().dir());

    let list = |bytes: Vec<u8>| with_evil_kubelet(&String::from_utf8(bytes).unwrap()).into_bytes();
    let is_kubelet = |bytes: &[u8]| bytes == content("kubelet");
    let named = |name: &str, wanted: &str| name == wanted;
    type Change<'a> = Box<dyn Fn(&str, Vec<u8>) -> Option<Vec<u8>> + 'a>;
    let foreign = fs::read(signature(&target, own.id())).unwrap();
    let attacks: Vec<(&str, Change<'_>, &str)> = vec![
        ("unknown key", Box::new(|_, bytes| Some(bytes)), "bundle import --trust"),
        ("changed program", Box::new(|_, bytes| Some(if is_kubelet(&bytes) { evil() } else { bytes })), "unexpected"),
        (
            "changed bytes",
            Box::new(|_, mut bytes| {
                if is_kubelet(&bytes) {
                    bytes[9] ^= 1;
                }
                Some(bytes)
            }),
            "checksum of `kubelet` is wrong",
        ),
        (
            "sums made anew",
            Box::new(|name, bytes| match name {
                "bundle.json" => Some(list(bytes)),
                _ if is_kubelet(&bytes) => Some(evil()),
                _ => Some(bytes),
            }),
            "is not what",
        ),
        (
            "no signature",
            Box::new(|name, bytes| (!named(name, "bundle.json.sig")).then_some(bytes)),
            "has no signature",
        ),
        (
            "signature of another bundle",
            Box::new(|name, bytes| Some(if named(name, "bundle.json.sig") { foreign.clone() } else { bytes })),
            "is not what",
        ),
        ("no list", Box::new(|name, bytes| (!named(name, "bundle.json")).then_some(bytes)), "no exported bundle"),
        ("missing program", Box::new(|_, bytes| (!is_kubelet(&bytes)).then_some(bytes)), "`kubelet` is missing"),
    ];
    for (attack, change, reason) in attacks {
        altered(&tar, &bad, change);
        // All but the first are by a key that is trusted for this archive.
        let trust = if attack == "unknown key" { vec![] } else { vec![exporter] };
        let error = Bundle::import(&target, &bad, &trust, &|_| {}).await.unwrap_err();
        assert!(
            matches!(error, BundleError::Archive { .. }) && error.to_string().contains(reason),
            "{attack}: {error}"
        );
        assert!(files(target.dir()) == before && files(target.keys().dir()) == keys, "{attack} changed something");
    }
    let whole = fs::read(&tar).unwrap();
    for length in [0, 100, 700, whole.len() / 2] {
        fs::write(&bad, &whole[..length]).unwrap();
        Bundle::import(&target, &bad, &[exporter], &|_| {}).await.unwrap_err();
        assert!(files(target.dir()) == before, "an archive of {length} bytes changed something");
    }

    // The whole one by a key that is trusted: from then on this machine vouches for it.
    let imported = Bundle::import(&target, &tar, &[exporter], &|_| {}).await.unwrap();
    assert_eq!((imported.id(), imported.signer()), (bundle.id(), target.keys().own().unwrap()));
    assert_eq!(open(&target).unwrap().id(), bundle.id());
    assert!(target.keys().trusted().unwrap().is_empty(), "for that archive alone");
}

#[tokio::test]
async fn a_key_that_is_trusted_counts_until_it_is_not() {
    let setup = setup().await;
    let bundle = setup.build().await.unwrap();
    let other = other_installation(&setup, "cache");
    assert!(open(&other).is_err());
    other.keys().trust(bundle.signer()).unwrap();
    let opened = open(&other).unwrap();
    assert_eq!(opened.signer(), bundle.signer());
    // Nodes trust one key: the own one may say the same, nobody else's.
    let (own, theirs) = (other.keys().own().unwrap(), bundle.statement(bundle.signer()).unwrap());
    let told = opened.statement(own).unwrap();
    assert_eq!((told.signature.keyid, &told.manifest), (own, &theirs.manifest));
    assert_eq!(opened.statement(bundle.signer()).unwrap().signature, theirs.signature);
    assert!(bundle.statement(own).is_err(), "of a key that is not here");
    assert!(other.keys().distrust(bundle.signer()).unwrap() && open(&other).is_err());
}

#[tokio::test]
async fn another_key_takes_the_place_of_the_old_one_and_nothing_is_built_again() {
    let setup = setup().await;
    let bundle = setup.build().await.unwrap();
    let (cache, old) = (setup.cache("cache"), bundle.signer());
    let new = bundle::rotate(cache.keys(), &|_| {}).await.unwrap();
    assert_ne!(new, old);
    assert_eq!(cache.keys().own().unwrap(), new);
    let told = open(&cache).unwrap().statement(new).unwrap();
    assert_eq!(told.signature.keyid, new);
    assert_eq!(told.successions.iter().map(|word| (word.from, word.to)).collect::<Vec<_>>(), [(old, new)]);
    let private: Vec<_> =
        files(cache.keys().dir()).into_keys().filter(|path| path.extension().is_some_and(|e| e == "key")).collect();
    assert_eq!(private.len(), 1, "the old private key is gone: {private:?}");
    // Neither the bundle nor single results count less.
    let before = setup.server.requests();
    fs::remove_dir_all(cache.bundles()).unwrap();
    assert_eq!(setup.build().await.unwrap().id(), bundle.id());
    assert_eq!(setup.server.requests(), before);
    assert!(
        bundle::rotate(&cache.keys().clone().with_file(Some(private[0].clone())), &|_| {}).await.is_err(),
        "the same key"
    );
}
