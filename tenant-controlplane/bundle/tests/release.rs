//! The whole way from a release server to a bundle, against a real HTTP server on loopback that can misbehave.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod server;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bundle::{AgentSource, BuildOptions, Bundle, BundleError, Kind, Progress, ReleaseOptions, Source, Version};
use server::Server;

/// Every program of the catalogue; the CNI plugins come in one archive.
const PLAIN: [&str; 16] = [
    "pause",
    "runc",
    "etcd",
    "etcdctl",
    "etcdutl",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "local-path-provisioner",
    "coredns",
];
const PLUGINS: [&str; 5] = ["ptp", "bridge", "loopback", "host-local", "portmap"];

struct Setup {
    dir: tempfile::TempDir,
    server: Server,
    table: PathBuf,
}

/// A program of some size whose bytes tell its name.
fn content(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(200_000).collect()
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in <sha2::Sha256 as sha2::Digest>::digest(bytes) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn archive() -> Vec<u8> {
    let mut out = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for name in PLUGINS {
        let bytes = content(name);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        out.append_data(&mut header, format!("./{name}"), bytes.as_slice()).unwrap();
    }
    out.into_inner().unwrap().finish().unwrap()
}

async fn setup() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let archive = archive();
    let mut files: Vec<(String, Vec<u8>)> = PLAIN.iter().map(|name| (format!("/bin/{name}"), content(name))).collect();
    let mut table = String::from("kubernetes = \"1.36.3\"\nbase = \"http://127.0.0.1:9/nobody\"\n");
    for name in PLAIN {
        table += &format!("[artefact.{name}]\nurl = \"bin/{name}\"\nsha256 = \"{}\"\n", sha256(&content(name)));
    }
    for name in PLUGINS {
        table +=
            &format!("[artefact.{name}]\nurl = \"cni.tgz\"\nmember = \"{name}\"\nsha256 = \"{}\"\n", sha256(&archive));
    }
    files.push(("/cni.tgz".to_owned(), archive));
    let path = dir.path().join("checksums.toml");
    std::fs::write(&path, table).unwrap();
    Setup { server: Server::start(files).await, table: path, dir }
}

impl Setup {
    fn options(&self, source: Source) -> BuildOptions {
        BuildOptions {
            cache: self.dir.path().join("cache"),
            source,
            agent: AgentSource::Absent,
            release: ReleaseOptions { checksums: Some(self.table.clone()), base_url: Some(self.server.url()) },
            ..BuildOptions::new(Version::default())
        }
    }

    async fn build(&self) -> Result<Bundle, BundleError> {
        Bundle::build(&self.options(Source::Release), &|_| {}).await
    }
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
    assert_eq!(Bundle::open(&setup.dir.path().join("cache"), Version::default()).unwrap().id(), first.id());
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
    assert!(matches!(
        Bundle::open(&setup.dir.path().join("cache"), Version::default()),
        Err(BundleError::NotBuilt { .. })
    ));

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
    assert!(heard.lock().unwrap().iter().any(|line| line.starts_with("source: release (every checksum is pinned")));
}

#[tokio::test]
async fn auto_without_either_names_both() {
    let setup = setup().await;
    let mut opts = setup.options(Source::Auto);
    opts.release.checksums = None;
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
async fn an_incomplete_table_names_what_it_lacks() {
    let setup = setup().await;
    let text = std::fs::read_to_string(&setup.table).unwrap().replace("[artefact.runc]", "[artefact.other]");
    std::fs::write(&setup.table, text).unwrap();
    let error = setup.build().await.unwrap_err().to_string();
    assert!(error.ends_with("lacks: runc"), "{error}");
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
    let opened = Bundle::open(&setup.dir.path().join("cache"), Version::default()).unwrap();
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
    let error = Bundle::open(&setup.dir.path().join("cache"), Version::default()).unwrap_err().to_string();
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

    let other = setup.dir.path().join("other");
    let imported = Bundle::import(&other, &one, &|_| {}).await.unwrap();
    assert_eq!((imported.id(), imported.manifest()), (bundle.id(), bundle.manifest()));
    imported.verify(&|_| {}).unwrap();
    let list = bundle::list(&other).unwrap();
    assert!(list.len() == 1 && list[0].current && list[0].id == bundle.id());

    let at = bytes.windows(14).position(|window| window == b"kubeletkubelet").unwrap();
    let mut changed = bytes.clone();
    changed[at] ^= 1;
    std::fs::write(&one, &changed).unwrap();
    let third = setup.dir.path().join("third");
    let error = Bundle::import(&third, &one, &|_| {}).await.unwrap_err().to_string();
    assert!(error.contains("checksum of `kubelet` is wrong"), "{error}");
    assert!(matches!(Bundle::open(&third, Version::default()), Err(BundleError::NotBuilt { .. })));

    std::fs::write(&one, &bytes[..bytes.len() / 2]).unwrap();
    Bundle::import(&third, &one, &|_| {}).await.unwrap_err();
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
