//! The whole way from a release server to a bundle, against a real HTTP server on loopback that can misbehave.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod archives;
mod meanwhile;
mod server;
mod setup;
mod signatures;

use std::path::Path;
use std::sync::{Arc, Mutex};

use bundle::{AgentSource, Bundle, BundleError, Kind, Progress, PruneOptions, Pruned, Source, Version, prune};
use setup::{archive, content, setup, sha256};

fn sha512(bytes: &[u8]) -> String {
    <sha2::Sha512 as sha2::Digest>::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As Kubernetes packs its server programs.
fn server_archive() -> Vec<u8> {
    let mut out = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for name in ["kube-apiserver", "kubelet", "mounter"] {
        let bytes = content(&format!("member {name}"));
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        out.append_data(&mut header, format!("kubernetes/server/bin/{name}"), bytes.as_slice()).unwrap();
    }
    out.into_inner().unwrap().finish().unwrap()
}

#[tokio::test]
async fn a_release_becomes_a_bundle_and_nothing_is_fetched_twice() {
    let setup = setup().await;
    let first = setup.build().await.unwrap();
    let kubelet = first.artefact("kubelet").unwrap();
    assert_eq!(std::fs::read(first.path(kubelet)).unwrap(), content("kubelet"));
    assert_eq!((kubelet.kind, kubelet.version.as_str()), (Kind::Binary, "1.36.3"));
    assert_eq!(kubelet.source, format!("{}/bin/kubelet", setup.server.url()));
    assert_eq!(std::fs::read(first.program("ptp").unwrap()).unwrap(), content("ptp"));
    assert_eq!(first.image_ref("etcd").unwrap(), "pilothouse.local/etcd:3.6.16");
    assert_eq!(setup.server.hits("/cni.tgz"), 1, "one archive serves five plugins");

    let cached = Arc::new(Mutex::new(0));
    let count = cached.clone();
    let report = move |progress: Progress| {
        if matches!(progress, Progress::Done { cached: true, .. }) {
            *count.lock().unwrap() += 1;
        }
    };
    let second = Bundle::build(&setup.options(Source::Release), &report).await.unwrap();
    assert_eq!(second.id(), first.id());
    assert_eq!(*cached.lock().unwrap(), first.artefacts().len());
    assert_eq!(setup.server.hits("/bin/kubelet"), 1);
    assert_eq!(Bundle::open(&setup.cache("cache"), Version::default()).unwrap().id(), first.id());
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_not_kept() {
    let setup = setup().await;
    setup.server.replace("/bin/kubelet", b"something else".to_vec());
    let error = setup.build().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BundleError::Checksum { .. }), "{text}");
    assert!(
        text.contains("kubelet")
            && text.contains(&sha256(&content("kubelet")))
            && text.contains(&sha256(b"something else")),
        "{text}"
    );
    assert!(matches!(Bundle::open(&setup.cache("cache"), Version::default()), Err(BundleError::NotBuilt { .. })));

    setup.server.replace("/bin/kubelet", content("kubelet"));
    setup.build().await.unwrap();
    assert_eq!(setup.server.hits("/bin/runc"), 1, "what was right stays");
}

#[tokio::test]
async fn a_broken_connection_is_resumed_where_it_broke() {
    let setup = setup().await;
    setup.server.cut("/bin/kubelet", 50_000, 1);
    setup.build().await.unwrap();
    assert_eq!(setup.server.hits("/bin/kubelet"), 2);
    assert!(
        setup.server.ranges("/bin/kubelet").iter().any(|from| *from >= 50_000),
        "{:?}",
        setup.server.ranges("/bin/kubelet")
    );
}

#[tokio::test]
async fn a_later_run_resumes_what_an_earlier_one_could_not_finish() {
    let setup = setup().await;
    setup.server.cut("/bin/kubelet", 20_000, 4);
    let error = setup.build().await.unwrap_err().to_string();
    assert!(error.contains("run it again to resume"), "{error}");
    setup.build().await.unwrap();
    assert!(setup.server.ranges("/bin/kubelet").last().is_some_and(|from| *from >= 80_000));
}

#[tokio::test]
async fn a_missing_file_names_itself_and_is_not_retried() {
    let setup = setup().await;
    setup.server.remove("/bin/coredns");
    let error = setup.build().await.unwrap_err().to_string();
    assert!(error.contains("coredns") && error.ends_with("the server answered 404"), "{error}");
    assert_eq!(setup.server.hits("/bin/coredns"), 1);
}

#[tokio::test]
async fn auto_takes_the_release_when_it_can_and_says_so() {
    let setup = setup().await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let tell = heard.clone();
    let report = move |progress: Progress| tell.lock().unwrap().push(progress.to_string());
    Bundle::build(&setup.options(Source::Auto), &report).await.unwrap();
    assert!(heard.lock().unwrap().iter().any(|line| line.starts_with("source: release (checksums are pinned")));
}

#[tokio::test]
async fn auto_without_either_names_both() {
    let setup = setup().await;
    let mut opts = setup.options(Source::Auto);
    let text = std::fs::read_to_string(&setup.table).unwrap().replace("\"1.36.3\"", "\"1.35.4\"");
    std::fs::write(&setup.table, text).unwrap();
    opts.go = Some(Path::new("/nonexistent/go").to_owned());
    let error = Bundle::build(&opts, &|_| {}).await.unwrap_err().to_string();
    assert!(error.contains("release: no checksums are known") && error.contains("modules: "), "{error}");
}

#[tokio::test]
async fn auto_does_not_wait_for_a_dead_server() {
    let setup = setup().await;
    let mut opts = setup.options(Source::Auto);
    opts.release.base_url = Some("http://127.0.0.1:9".to_owned());
    opts.go = Some(Path::new("/nonexistent/go").to_owned());
    let error = Bundle::build(&opts, &|_| {}).await.unwrap_err().to_string();
    assert!(error.contains("release: no answer from http://127.0.0.1:9 within 2 s; modules: "), "{error}");
}

#[tokio::test]
async fn what_is_not_pinned_is_built_and_both_are_said() {
    let setup = setup().await;
    setup.unpin("pause");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let tell = heard.clone();
    let report = move |progress: Progress| tell.lock().unwrap().push(progress.to_string());
    let mut opts = setup.options(Source::Release);
    // Only the disk of the test is at stake: the toolchain builds a program of thirty lines.
    opts.free_space = Arc::new(|_| Ok(u64::MAX));
    let bundle = Bundle::build(&opts, &report).await.unwrap();
    assert_eq!(bundle.artefact("pause").unwrap().source, "go:pilothouse.local/pause");
    assert!(bundle.artefact("runc").unwrap().source.starts_with("http://127.0.0.1:"));
    assert_eq!(setup.server.hits("/bin/pause"), 0);
    let heard = heard.lock().unwrap();
    let split = heard.iter().find(|line| line.starts_with("official: ptp, bridge,")).unwrap();
    assert!(split.ends_with("; built here: pause"), "{split}");
}

#[tokio::test]
async fn without_go_what_is_not_pinned_is_named_before_anything_is_fetched() {
    let setup = setup().await;
    setup.unpin("runc");
    setup.unpin("coredns");
    let mut opts = setup.options(Source::Release);
    opts.go = Some(Path::new("/nonexistent/go").to_owned());
    let error = Bundle::build(&opts, &|_| {}).await.unwrap_err().to_string();
    assert!(
        error.starts_with("no official artefact is pinned for runc, coredns: they are built from source, and"),
        "{error}"
    );
    assert_eq!(setup.server.requests(), 0);
}

#[tokio::test]
async fn one_archive_by_sha512_serves_its_members() {
    let setup = setup().await;
    let archive = server_archive();
    let row = |name: &str| {
        format!(
            "[artefact.{name}]\nurl = \"server.tgz\"\nmember = \"kubernetes/server/bin/{name}\"\nsha512 = \"{}\"\n",
            sha512(&archive)
        )
    };
    for name in ["kube-apiserver", "kubelet"] {
        setup.unpin(name);
        let table = std::fs::read_to_string(&setup.table).unwrap();
        std::fs::write(&setup.table, table + &row(name)).unwrap();
    }
    setup.server.replace("/server.tgz", archive.clone());
    setup.server.cut("/server.tgz", archive.len() / 2, 1);
    let bundle = setup.build().await.unwrap();
    assert_eq!(std::fs::read(bundle.program("kubelet").unwrap()).unwrap(), content("member kubelet"));
    assert_eq!(std::fs::read(bundle.program("kube-apiserver").unwrap()).unwrap(), content("member kube-apiserver"));
    assert_eq!(setup.server.ranges("/server.tgz"), [0, archive.len() / 2], "once, resumed where it broke");
}

#[tokio::test]
async fn an_archive_without_the_member_is_refused() {
    let setup = setup().await;
    let table = std::fs::read_to_string(&setup.table).unwrap().replace("member = \"ptp\"", "member = \"../ptp\"");
    std::fs::write(&setup.table, table).unwrap();
    let error = setup.build().await.unwrap_err().to_string();
    assert_eq!(error, "archive of ptp has no member `../ptp`");
}

#[tokio::test]
async fn a_download_that_was_changed_on_disk_is_fetched_anew() {
    let setup = setup().await;
    setup.server.remove("/bin/coredns");
    setup.build().await.unwrap_err();
    // The plugins' archive was proven and is there still; its programs are taken away and a byte of it is turned.
    let cache = setup.dir.path().join("cache");
    let whole = cache.join("downloads").join(sha256(&archive()));
    let mut bytes = std::fs::read(&whole).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&whole, bytes).unwrap();
    std::fs::remove_dir_all(cache.join("done")).unwrap();
    setup.server.replace("/bin/coredns", content("coredns"));
    let bundle = setup.build().await.unwrap();
    assert_eq!(std::fs::read(bundle.program("ptp").unwrap()).unwrap(), content("ptp"));
    assert_eq!(setup.server.hits("/cni.tgz"), 2);
}

#[tokio::test]
async fn a_beginning_of_another_file_is_not_resumed_for_ever() {
    let setup = setup().await;
    let part = setup.dir.path().join("cache/downloads").join(sha256(&content("kubelet"))).with_extension("part");
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, vec![7; 1000]).unwrap();
    setup.build().await.unwrap();
    assert_eq!(setup.server.ranges("/bin/kubelet"), [1000, 0]);
}

#[tokio::test]
async fn more_than_any_artefact_has_is_refused_and_not_kept() {
    let setup = setup().await;
    let table = std::fs::read_to_string(&setup.table).unwrap();
    std::fs::write(&setup.table, table.replace("url = \"bin/kubelet\"", "url = \"bin/kubelet\"\nmax_mib = 1")).unwrap();
    setup.server.replace("/bin/kubelet", vec![0; 2 << 20]);
    let error = setup.build().await.unwrap_err().to_string();
    assert!(error.contains("kubelet") && error.contains("more than 1.0 MB, nothing of it was kept"), "{error}");
    assert_eq!(setup.server.hits("/bin/kubelet"), 1, "it is not tried again");
    let left = std::fs::read_dir(setup.dir.path().join("cache/downloads")).unwrap().flatten();
    assert_eq!(left.filter(|entry| entry.path().extension().is_some_and(|end| end == "part")).count(), 0);
}

#[tokio::test]
async fn a_slow_server_is_waited_for_and_a_silent_one_is_not() {
    let setup = setup().await;
    setup.server.slow("/bin/kubelet");
    setup.build().await.unwrap();
    assert_eq!(setup.server.hits("/bin/kubelet"), 1);

    let setup = self::setup().await;
    setup.server.silence("/bin/kubelet", 30_000, 1);
    let mut opts = setup.options(Source::Release);
    opts.release.silence = std::time::Duration::from_secs(1);
    Bundle::build(&opts, &|_| {}).await.unwrap();
    assert_eq!(setup.server.ranges("/bin/kubelet")[..2], [0, 30_000]);
}

#[tokio::test]
async fn auto_asks_nobody_when_the_cache_is_complete() {
    let setup = setup().await;
    let first = setup.build().await.unwrap();
    let before = setup.server.requests();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let tell = heard.clone();
    let report = move |progress: Progress| tell.lock().unwrap().push(progress.to_string());
    let mut opts = setup.options(Source::Auto);
    opts.go = Some(Path::new("/nonexistent/go").to_owned());
    let second = Bundle::build(&opts, &report).await.unwrap();
    assert_eq!((second.id(), setup.server.requests()), (first.id(), before));
    let line = format!("source: cache ({} is complete)", first.id());
    assert!(heard.lock().unwrap().contains(&line), "{:?}", heard.lock().unwrap());

    // One byte turned, size and all else as before: it is found before anything runs, and mended.
    let path = first.program("kubelet").unwrap();
    let mut bytes = content("kubelet");
    bytes[7] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    Bundle::build(&opts, &|_| {}).await.unwrap().verify(&|_| {}).unwrap();
    assert_eq!(setup.server.hits("/bin/kubelet"), 2);
}

#[tokio::test]
async fn an_imported_bundle_is_used_without_network_and_toolchain() {
    let setup = setup().await;
    let bundle = setup.build().await.unwrap();
    let tar = setup.dir.path().join("one.tar");
    bundle.export(&tar, &|_| {}).unwrap();
    let mut opts = setup.options(Source::Auto);
    opts.cache = setup.cache("other");
    opts.go = Some(Path::new("/nonexistent/go").to_owned());
    assert!(!Bundle::is_current(&opts.cache, opts.version), "nothing is there yet");
    Bundle::import(&opts.cache, &tar, &[], &|_| {}).await.unwrap();
    assert!(Bundle::is_current(&opts.cache, opts.version));
    let before = setup.server.requests();
    assert_eq!(Bundle::build(&opts, &|_| {}).await.unwrap().id(), bundle.id());
    assert_eq!(setup.server.requests(), before);
    // One made by an earlier recipe is better than none.
    std::fs::remove_file(opts.cache.bundles().join(bundle.id()).join("recipe")).unwrap();
    assert!(!Bundle::is_current(&opts.cache, opts.version), "it would be made again if it could");
    opts.release.base_url = Some("http://127.0.0.1:9".to_owned());
    assert_eq!(Bundle::build(&opts, &|_| {}).await.unwrap().id(), bundle.id());
}

#[tokio::test]
async fn a_cache_others_can_write_to_is_neither_used_nor_filled() {
    use std::os::unix::fs::PermissionsExt;
    let setup = setup().await;
    setup.build().await.unwrap();
    let blobs = setup.dir.path().join("cache/sha256");
    std::fs::set_permissions(&blobs, std::fs::Permissions::from_mode(0o777)).unwrap();
    let text = Bundle::open(&setup.cache("cache"), Version::default()).unwrap_err().to_string();
    assert!(text.ends_with("others may write to it (mode 0777); run `chmod go-w` on it"), "{text}");
    assert!(matches!(setup.build().await, Err(BundleError::Untrusted { .. })));
}

#[tokio::test]
async fn what_is_locked_is_open_to_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let setup = setup().await;
    let bundle = setup.build().await.unwrap();
    let cache = setup.dir.path().join("cache");
    for path in [cache.join("lock"), cache.join("bundles").join(bundle.id()).join("hold")] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
    // Somebody who may read the cache locks what there is to read, and nobody waits.
    let manifest = std::fs::File::open(cache.join("bundles").join(bundle.id()).join("bundle.json")).unwrap();
    manifest.lock().unwrap();
    Bundle::open(&setup.cache("cache"), Version::default()).unwrap();
}

#[tokio::test]
async fn two_builds_in_one_cache_share_one_download() {
    let setup = setup().await;
    let (one, two) = tokio::join!(setup.build(), setup.build());
    assert_eq!(one.unwrap().id(), two.unwrap().id());
    assert_eq!(setup.server.hits("/bin/kubelet"), 1);
}

#[tokio::test]
async fn a_build_that_was_stopped_goes_on_where_it_was() {
    let setup = setup().await;
    setup.server.silence("/bin/kubelet", 30_000, 1);
    tokio::select! {
        _ = setup.build() => panic!("it ended although the server is silent"),
        () = setup.server.silent() => {}
    }
    // What was sent lies on disk a moment later; only then is there something to resume.
    setup.build().await.unwrap();
    assert_eq!(setup.server.hits("/bin/etcd"), 1);
    assert_eq!(setup.server.hits("/bin/kubelet"), 2);
}

#[tokio::test]
async fn pruning_spares_what_is_current_or_open() {
    use std::os::unix::process::CommandExt;
    let setup = setup().await;
    let cache = setup.dir.path().join("cache");
    let first = setup.build().await.unwrap();
    let second = first.with_agent(Path::new("/bin/busybox"), &|_| {}).await.unwrap();
    std::fs::write(cache.join("downloads/rest.part"), b"rest").unwrap();
    std::fs::write(cache.join("sha256").join("0".repeat(64)), b"stray").unwrap();
    std::fs::create_dir(cache.join("bundles/1.36.3-begun")).unwrap();
    let all = |dry_run| PruneOptions { keep: std::time::Duration::ZERO, dry_run };
    let names = |pruned: &Pruned| pruned.removed.iter().map(|item| item.name.clone()).collect::<Vec<_>>();
    let stray = format!("sha256/{}", "0".repeat(64));

    let told = prune(&cache, &PruneOptions { dry_run: true, ..PruneOptions::default() }, &|_| {}).await.unwrap();
    assert_eq!(names(&told), ["bundles/1.36.3-begun"], "the rest is young");
    let told = prune(&cache, &all(true), &|_| {}).await.unwrap();
    assert_eq!(told.kept, [(first.id().to_owned(), "in use")]);
    assert!(cache.join(&stray).exists() && told.size() >= 9, "a dry run removes nothing");

    let (id, current) = (first.id().to_owned(), second.id().to_owned());
    assert_eq!(prune(&cache, &all(false), &|_| {}).await.unwrap().removed, told.removed);
    assert_eq!(names(&told)[..2], ["bundles/1.36.3-begun".to_owned(), stray]);
    first.verify(&|_| {}).unwrap();

    drop(first);
    let pruned = prune(&cache, &all(false), &|_| {}).await.unwrap();
    assert_eq!((names(&pruned), pruned.kept.len()), (vec![format!("bundles/{id}")], 0), "they share their blobs");
    second.verify(&|_| {}).unwrap();

    // The agent's blob goes with the last bundle that has it, once that is not current either.
    let agent = second.artefact("pilothouse-node").unwrap().sha256.clone();
    let third = setup.build().await.unwrap();
    let program = second.path(second.artefact("pilothouse-node").unwrap());
    let mut running = std::process::Command::new(program)
        .arg0("cat")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    drop(second);
    let pruned = names(&prune(&cache, &all(true), &|_| {}).await.unwrap());
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(pruned, [format!("bundles/{current}")], "a program that runs stays");
    let pruned = names(&prune(&cache, &all(false), &|_| {}).await.unwrap());
    assert_eq!(pruned, [format!("bundles/{current}"), format!("sha256/{agent}")]);
    third.verify(&|_| {}).unwrap();
}

#[tokio::test]
async fn a_small_disk_is_refused_before_anything_is_fetched() {
    let setup = setup().await;
    let mut opts = setup.options(Source::Release);
    opts.free_space = Arc::new(|_| Ok(1_000_000));
    let error = Bundle::build(&opts, &|_| {}).await.unwrap_err();
    assert!(matches!(error, BundleError::Space { free: 1_000_000, .. }), "{error}");
    assert_eq!(setup.server.hits("/bin/pause"), 0);
}

#[tokio::test]
async fn a_flipped_bit_is_found_named_and_mended() {
    use std::os::unix::fs::PermissionsExt;
    let setup = setup().await;
    let bundle = setup.build().await.unwrap();
    bundle.verify(&|_| {}).unwrap();
    let path = bundle.program("kubelet").unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o555);
    let mut bytes = content("kubelet");
    bytes[1234] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    // Opening looks at sizes only; verifying reads.
    let opened = Bundle::open(&setup.cache("cache"), Version::default()).unwrap();
    let error = opened.verify(&|_| {}).unwrap_err();
    let BundleError::Damaged { damage, .. } = &error else { panic!("{error}") };
    assert_eq!(damage.iter().map(|damage| damage.name.as_str()).collect::<Vec<_>>(), ["kubelet"]);
    assert!(
        error.to_string().ends_with("run `pilothouse bundle build --version 1.36.3`, it replaces just these"),
        "{error}"
    );

    let mended = setup.build().await.unwrap();
    assert_eq!(mended.id(), bundle.id());
    mended.verify(&|_| {}).unwrap();
    assert_eq!((setup.server.hits("/bin/kubelet"), setup.server.hits("/bin/etcd")), (2, 1));

    std::fs::remove_file(&path).unwrap();
    let error = Bundle::open(&setup.cache("cache"), Version::default()).unwrap_err().to_string();
    assert!(error.contains("kubelet") && error.contains("missing"), "{error}");
}

#[tokio::test]
async fn an_export_carries_everything_and_a_changed_one_is_refused() {
    let setup = setup().await;
    let bundle = setup.build().await.unwrap();
    let (one, two) = (setup.dir.path().join("one.tar"), setup.dir.path().join("two.tar"));
    bundle.export(&one, &|_| {}).unwrap();
    bundle.export(&two, &|_| {}).unwrap();
    let bytes = std::fs::read(&one).unwrap();
    assert!(bytes == std::fs::read(&two).unwrap(), "the same bundle makes the same archive");

    let other = setup.cache("other");
    let imported = Bundle::import(&other, &one, &[], &|_| {}).await.unwrap();
    assert_eq!((imported.id(), imported.manifest()), (bundle.id(), bundle.manifest()));
    imported.verify(&|_| {}).unwrap();
    let list = bundle::list(other.dir()).unwrap();
    assert!(list.len() == 1 && list[0].current && list[0].id == bundle.id());

    let at = bytes.windows(14).position(|window| window == b"kubeletkubelet").unwrap();
    let mut changed = bytes.clone();
    changed[at] ^= 1;
    std::fs::write(&one, &changed).unwrap();
    let third = setup.cache("third");
    let error = Bundle::import(&third, &one, &[], &|_| {}).await.unwrap_err().to_string();
    assert!(error.contains("checksum of `kubelet` is wrong"), "{error}");
    assert!(matches!(Bundle::open(&third, Version::default()), Err(BundleError::NotBuilt { .. })));

    std::fs::write(&one, &bytes[..bytes.len() / 2]).unwrap();
    Bundle::import(&third, &one, &[], &|_| {}).await.unwrap_err();
}

#[tokio::test]
async fn the_agent_is_replaced_alone_and_must_be_static() {
    let setup = setup().await;
    let bundle = setup.build().await.unwrap();
    assert!(bundle.artefact("pilothouse-node").is_none());
    let error = bundle.with_agent(&std::env::current_exe().unwrap(), &|_| {}).await.unwrap_err();
    assert!(matches!(error, BundleError::NotStatic { .. }), "{error}");
    // Debian's static busybox stands in for the agent: any static program will do here.
    let with = bundle.with_agent(Path::new("/bin/busybox"), &|_| {}).await.unwrap();
    assert_eq!(with.artefact("pilothouse-node").unwrap().kind, Kind::Agent);
    assert_ne!(with.id(), bundle.id());
    assert_eq!(with.artefacts().len(), bundle.artefacts().len() + 1);
    let list = bundle::list(&setup.dir.path().join("cache")).unwrap();
    assert_eq!(
        list.iter().filter(|summary| summary.current).map(|summary| summary.id.as_str()).collect::<Vec<_>>(),
        [with.id()]
    );
}

#[tokio::test]
async fn the_agent_is_built_static_from_a_workspace() {
    let setup = setup().await;
    // A workspace of the same shape as ours, small enough to compile in a second.
    let workspace = setup.dir.path().join("workspace");
    std::fs::create_dir_all(workspace.join("src")).unwrap();
    let manifest = "[package]\nname = \"node-bootstrap\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
        [[bin]]\nname = \"pilothouse-node\"\npath = \"src/main.rs\"\n[profile.agent]\ninherits = \"release\"\n[workspace]\n";
    std::fs::write(workspace.join("Cargo.toml"), manifest).unwrap();
    std::fs::write(
        workspace.join("Cargo.lock"),
        "version = 4\n\n[[package]]\nname = \"node-bootstrap\"\nversion = \"0.1.0\"\n",
    )
    .unwrap();
    std::fs::write(workspace.join("src/main.rs"), "fn main() { println!(\"aboard\"); }\n").unwrap();
    let mut opts = setup.options(Source::Release);
    opts.agent = AgentSource::Auto { workspace: Some(workspace) };
    let bundle = Bundle::build(&opts, &|_| {}).await.unwrap();
    let output = std::process::Command::new(bundle.program("pilothouse-node").unwrap()).output().unwrap();
    assert_eq!(output.stdout, b"aboard\n");
}
