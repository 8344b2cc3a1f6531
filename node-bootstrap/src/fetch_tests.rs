//! Fetching against a real gRPC server in the same process.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use node_protocol::node_link_server::{NodeLink, NodeLinkServer};
use node_protocol::{
    Certificates, Chunk, FetchRequest, NodeConfig, NodeReport, RenewRequest, ReportReply, WatchRequest,
};
use tonic::{Request, Response, Status};

use super::*;
use crate::machine::sha256_hex;

#[derive(Clone, Default)]
struct Platform {
    content: Arc<Vec<u8>>,
    /// How many bytes each call gives before the line breaks.
    breaks_after: Option<usize>,
    offsets: Arc<Mutex<Vec<u64>>>,
    calls: Arc<AtomicUsize>,
}

type Chunks = Pin<Box<dyn futures::Stream<Item = Result<Chunk, Status>> + Send>>;

#[tonic::async_trait]
impl NodeLink for Platform {
    type WatchStream = Pin<Box<dyn futures::Stream<Item = Result<NodeConfig, Status>> + Send>>;
    type FetchStream = Chunks;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn report(&self, _: Request<NodeReport>) -> Result<Response<ReportReply>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<Certificates>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Chunks>, Status> {
        let asked = request.into_inner();
        if asked.sha256 != sha256_hex(&self.content) && asked.sha256 != "f".repeat(64) {
            return Err(Status::not_found("no such part"));
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.offsets.lock().unwrap().push(asked.offset);
        let rest = self.content[asked.offset as usize..].to_vec();
        let given = self.breaks_after.unwrap_or(usize::MAX).min(rest.len());
        let mut items: Vec<Result<Chunk, Status>> =
            rest[..given].chunks(1000).enumerate().map(|(at, data)| Ok(chunk(data, at % 2 == 0))).collect();
        if given < rest.len() {
            items.push(Err(Status::unavailable("the line broke")));
        }
        Ok(Response::new(Box::pin(futures::stream::iter(items))))
    }
}

/// Platforms that pack, and those that do not.
fn chunk(data: &[u8], packed: bool) -> Chunk {
    let unpacked = u32::try_from(data.len()).unwrap();
    let frame = || zstd::bulk::compress(data, 1).unwrap();
    if packed { Chunk { data: frame(), unpacked } } else { Chunk { data: data.to_vec(), unpacked: 0 } }
}

async fn serve(platform: Platform) -> NodeLinkClient<Channel> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(NodeLinkServer::new(platform.clone()));
            tokio::spawn(async move {
                Builder::new(TokioExecutor::new()).http2_only().serve_connection(TokioIo::new(stream), service).await
            });
        }
    });
    NodeLinkClient::connect(format!("http://{address}")).await.unwrap()
}

fn part(content: &[u8], kind: PartKind) -> Part {
    let (sha256, size) = (sha256_hex(content), content.len() as u64);
    Part { name: "kubelet".into(), kind: kind.into(), version: "1".into(), sha256, size, image: String::new() }
}

#[tokio::test]
async fn a_broken_transfer_is_resumed_and_verified() {
    let content: Vec<u8> = (0..10_000_u32).flat_map(u32::to_le_bytes).collect();
    let platform = Platform { content: Arc::new(content.clone()), breaks_after: Some(15_000), ..Platform::default() };
    let dir = tempfile::tempdir().unwrap();
    let store = PartStore::new(dir.path().join("parts"), None);
    let wanted = part(&content, PartKind::Binary);
    store
        .ensure_all(std::slice::from_ref(&wanted), &serve(platform.clone()).await, &Arrivals::default())
        .await
        .unwrap();
    assert_eq!(fs::read(store.path(&wanted.sha256)).unwrap(), content);
    assert_eq!(*platform.offsets.lock().unwrap(), vec![0, 15_000, 30_000]);
    assert_eq!(fs::metadata(store.path(&wanted.sha256)).unwrap().permissions().mode() & 0o777, 0o755);
}

#[tokio::test]
async fn what_a_killed_agent_left_is_gone_on_with_unless_it_is_too_much() {
    let content: Vec<u8> = (0..5_000_u32).flat_map(u32::to_le_bytes).collect();
    let platform = Platform { content: Arc::new(content.clone()), ..Platform::default() };
    let link = serve(platform.clone()).await;
    let wanted = part(&content, PartKind::Image);
    for left in [content[..7_000].to_vec(), content.clone(), [&content[..], b"more"].concat()] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{}.partial", wanted.sha256)), &left).unwrap();
        let store = PartStore::new(dir.path().to_owned(), None);
        store.ensure_all(std::slice::from_ref(&wanted), &link, &Arrivals::default()).await.unwrap();
        assert_eq!(fs::read(store.path(&wanted.sha256)).unwrap(), content);
        assert_eq!(fs::metadata(store.path(&wanted.sha256)).unwrap().permissions().mode() & 0o777, 0o644);
    }
    assert_eq!(*platform.offsets.lock().unwrap(), vec![7_000, 0], "a complete one is not asked for");
}

#[tokio::test]
async fn what_is_verified_is_not_fetched_again_and_a_changed_byte_is() {
    let content = vec![7_u8; 5000];
    let platform = Platform { content: Arc::new(content.clone()), ..Platform::default() };
    let link = serve(platform.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    let store = PartStore::new(dir.path().to_owned(), None);
    let wanted = [part(&content, PartKind::Image)];
    store.ensure_all(&wanted, &link, &Arrivals::default()).await.unwrap();
    store.ensure_all(&wanted, &link, &Arrivals::default()).await.unwrap();
    assert_eq!(platform.calls.load(Ordering::SeqCst), 1);
    let path = store.path(&wanted[0].sha256);
    let mut flipped = content.clone();
    flipped[17] ^= 1;
    fs::write(&path, &flipped).unwrap();
    store.ensure_all(&wanted, &link, &Arrivals::default()).await.unwrap();
    assert_eq!(platform.calls.load(Ordering::SeqCst), 2);
    assert_eq!(fs::read(&path).unwrap(), content);
}

#[tokio::test]
async fn the_wrong_bytes_are_thrown_away() {
    let platform = Platform { content: Arc::new(b"something else".to_vec()), ..Platform::default() };
    let dir = tempfile::tempdir().unwrap();
    let store = PartStore::new(dir.path().to_owned(), None);
    let mut wanted = part(b"what was promised", PartKind::Binary);
    wanted.sha256 = "f".repeat(64);
    let error = store.ensure_all(&[wanted.clone()], &serve(platform).await, &Arrivals::default()).await.unwrap_err();
    assert!(matches!(error, FetchError::Mismatch { .. }), "{error}");
    assert!(!store.path(&wanted.sha256).exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_seed_is_used_in_place_and_a_bad_seed_is_not() {
    let content = b"#!/bin/sh\n".to_vec();
    let platform = Platform { content: Arc::new(content.clone()), ..Platform::default() };
    let link = serve(platform.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    let seed = dir.path().join("seed");
    fs::create_dir(&seed).unwrap();
    let wanted = part(&content, PartKind::Binary);
    let seeded = seed.join(&wanted.sha256);
    fs::write(&seeded, &content).unwrap();
    fs::set_permissions(&seeded, fs::Permissions::from_mode(0o555)).unwrap();
    let store = PartStore::new(dir.path().join("parts"), Some(seed.clone()));
    store.ensure_all(std::slice::from_ref(&wanted), &link, &Arrivals::default()).await.unwrap();
    assert_eq!(fs::read_link(store.path(&wanted.sha256)).unwrap(), seeded);
    assert_eq!(platform.calls.load(Ordering::SeqCst), 0);

    fs::write(&seeded, b"#!/bin/no\n").unwrap();
    let other = PartStore::new(dir.path().join("other"), Some(seed));
    other.ensure_all(std::slice::from_ref(&wanted), &link, &Arrivals::default()).await.unwrap();
    assert_eq!(platform.calls.load(Ordering::SeqCst), 1, "a changed seed is passed over");
}

#[tokio::test]
async fn a_name_that_is_no_checksum_never_becomes_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let store = PartStore::new(dir.path().to_owned(), None);
    let wanted = Part { sha256: "../../etc/passwd".into(), ..part(b"", PartKind::Binary) };
    let error = store.ensure_all(&[wanted], &serve(Platform::default()).await, &Arrivals::default()).await.unwrap_err();
    assert!(matches!(error, FetchError::BadChecksum { .. }));
}

#[test]
fn programs_are_linked_by_name_and_images_listed() {
    let dir = tempfile::tempdir().unwrap();
    let pause = Part { name: "pause".into(), image: "x/pause:1".into(), ..part(b"p", PartKind::Image) };
    let parts = [part(b"k", PartKind::Binary), pause];
    let (images, digest) = install(&parts, dir.path(), |part| PathBuf::from("/parts").join(&part.sha256)).unwrap();
    assert_eq!(images[0].reference, "x/pause:1");
    assert!(digest.starts_with("kubelet="));
    assert_eq!(fs::read_link(dir.path().join("kubelet")).unwrap(), Path::new("/parts").join(&parts[0].sha256));
}

#[test]
fn what_is_here_and_what_a_node_starts_with_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = PartStore::new(dir.path().join("parts"), Some(dir.path().to_owned()));
    let named = |name: &str, kind: PartKind| Part { name: name.into(), ..part(name.as_bytes(), kind) };
    let parts = [
        ("kubelet", PartKind::Binary),
        ("coredns", PartKind::Image),
        ("pause", PartKind::Image),
        ("kube-proxy", PartKind::Binary),
        ("busybox", PartKind::Image),
    ]
    .map(|(name, kind)| named(name, kind));
    fs::write(dir.path().join(&parts[4].sha256), "seeded").unwrap();
    let (first, later) = store.in_two_goes(&parts);
    let names = |parts: &[Part]| parts.iter().map(|part| part.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&first), ["pause", "busybox", "kubelet"]);
    assert_eq!(names(&later), ["kube-proxy", "coredns"]);
}
