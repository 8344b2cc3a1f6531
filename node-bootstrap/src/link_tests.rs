//! The link against a gateway made of real TLS and real gRPC in the same process.

use std::net::SocketAddr;
use std::pin::Pin;

use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use node_protocol::node_link_server::{NodeLink, NodeLinkServer};
use node_protocol::{Certificates, Chunk, FetchRequest, NodePhase, ReportReply, alpn};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::*;
use crate::status::{Board, Phase};

/// A certificate authority for tests.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn leaf(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let params = CertificateParams::new(vec![name.into()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Signs a request as the platform would.
    pub(crate) fn sign(&self, request: &str, days: i64) -> String {
        let mut request = rcgen::CertificateSigningRequestParams::from_pem(request).unwrap();
        let now = OffsetDateTime::now_utc();
        (request.params.not_before, request.params.not_after) =
            (now - time::Duration::days(1), now + time::Duration::days(days));
        request.signed_by(&self.issuer).unwrap().pem()
    }
}

#[derive(Clone)]
struct Platform {
    authority: Arc<Authority>,
    reports: mpsc::Sender<NodeReport>,
    watches: mpsc::Sender<(u64, mpsc::Sender<Result<NodeConfig, Status>>)>,
}

type Stream<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl NodeLink for Platform {
    type WatchStream = ReceiverStream<Result<NodeConfig, Status>>;
    type FetchStream = Stream<Chunk>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(4);
        self.watches.send((request.into_inner().known_generation, sender)).await.unwrap();
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn report(&self, request: Request<NodeReport>) -> Result<Response<ReportReply>, Status> {
        let _ = self.reports.send(request.into_inner()).await;
        Ok(Response::new(ReportReply::default()))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Certificates>, Status> {
        let asked = request.into_inner();
        let [link_cert, kubelet_cert, proxy_cert, serving_cert] =
            [asked.link_csr, asked.kubelet_csr, asked.proxy_csr, asked.serving_csr]
                .map(|csr| self.authority.sign(&csr, 30));
        Ok(Response::new(Certificates { link_cert, kubelet_cert, proxy_cert, serving_cert }))
    }

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// A gateway that ends TLS and serves gRPC, and closes anything else after the handshake.
async fn gateway(platform: Platform) -> SocketAddr {
    let (certificate, key) = platform.authority.leaf("01m7.link.test.internal");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(platform.authority.pem.as_bytes()).unwrap()).unwrap();
    let clients = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config =
        rustls::ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![alpn::GRPC.to_vec(), alpn::TUNNEL.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            if stream.get_ref().1.alpn_protocol() == Some(alpn::GRPC) {
                let service = TowerToHyperService::new(NodeLinkServer::new(platform.clone()));
                tokio::spawn(async move {
                    Builder::new(TokioExecutor::new())
                        .http2_only()
                        .serve_connection(TokioIo::new(stream), service)
                        .await
                });
            }
        }
    });
    address
}

struct Scene {
    link: Link,
    pki: Store,
    reports: mpsc::Receiver<NodeReport>,
    watches: mpsc::Receiver<(u64, mpsc::Sender<Result<NodeConfig, Status>>)>,
    dir: tempfile::TempDir,
}

/// A link whose certificate was signed `days` before its end.
async fn scene(days: i64) -> Scene {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = Arc::new(Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let pki = Store::new(dir.path().join("pki"));
    let pending = pki.prepare("n1").unwrap();
    let [link_cert, kubelet_cert, proxy_cert, serving_cert] =
        pending.requests.clone().map(|csr| authority.sign(&csr, days));
    pki.accept(&pending, &Certificates { link_cert, kubelet_cert, proxy_cert, serving_cert }).unwrap();
    let ((reports, got_reports), (watches, got_watches)) = (mpsc::channel(16), mpsc::channel(16));
    let address = gateway(Platform { authority: Arc::clone(&authority), reports, watches }).await;
    let config = NodeConfig {
        server: address.to_string(),
        label: "01m7".into(),
        domain: "test.internal".into(),
        platform_ca: authority.pem.clone(),
        ..NodeConfig::default()
    };
    let link = Link::new(&config, pki.clone()).unwrap();
    Scene { link, pki, reports: got_reports, watches: got_watches, dir }
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.unwrap()
}

/// The next thing heard but how the link does.
async fn next(heard: &mut mpsc::Receiver<Event>) -> Option<Event> {
    loop {
        match soon(heard.recv()).await {
            Some(Event::Linked(_)) => {}
            other => return other,
        }
    }
}

#[tokio::test]
async fn a_watch_is_taken_up_again_from_what_is_known() {
    let mut scene = scene(30).await;
    let (events, mut heard) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let watching = tokio::spawn(scene.link.clone().watch(3, events, stop.clone()));
    let (known, platform) = soon(scene.watches.recv()).await.unwrap();
    assert_eq!(known, 3);
    platform.send(Ok(NodeConfig { generation: 7, ..NodeConfig::default() })).await.unwrap();
    assert!(matches!(next(&mut heard).await, Some(Event::Config(config)) if config.generation == 7));
    platform.send(Err(Status::unavailable("restarting"))).await.unwrap();
    let (known, mut platform) = soon(scene.watches.recv()).await.unwrap();
    assert_eq!(known, 7);
    // A text is for people, whatever it says; that the platform knows nothing of the node is no removal either.
    for said in [
        Status::permission_denied("node n1 was removed from its cluster"),
        node_protocol::Unknown { node_id: "nod_x".into() }.status(),
    ] {
        platform.send(Err(said)).await.unwrap();
        let (_, again) = soon(scene.watches.recv()).await.unwrap();
        platform = again;
    }
    let removal = Removal { node_id: "nod_x".into(), cluster_id: "cls_x".into(), removed_at: 7 };
    platform.send(Err(removal.clone().status())).await.unwrap();
    assert!(matches!(next(&mut heard).await, Some(Event::Removed(heard)) if heard == removal));
    stop.cancel();
    soon(watching).await.unwrap();
}

#[tokio::test]
async fn a_node_that_the_platform_does_not_know_says_so_and_goes_on() {
    let mut scene = scene(30).await;
    let (events, mut heard) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let watching = tokio::spawn(scene.link.clone().watch(3, events, stop.clone()));
    let (_, platform) = soon(scene.watches.recv()).await.unwrap();
    platform.send(Err(node_protocol::Unknown { node_id: "nod_x".into() }.status())).await.unwrap();
    let Some(Event::Linked(text)) = soon(heard.recv()).await else { panic!("nothing was said") };
    assert!(text.contains("does not know node nod_x") && text.contains("goes on as it is"), "{text}");
    let (known, _) = soon(scene.watches.recv()).await.unwrap();
    assert_eq!(known, 3, "asked again");
    stop.cancel();
    soon(watching).await.unwrap();
}

#[tokio::test]
async fn a_change_is_reported_at_once() {
    let mut scene = scene(30).await;
    let board = Board::new(scene.dir.path().join("status.json"));
    let told = Told {
        board: board.clone(),
        observed: watch::Sender::new(4).subscribe(),
        checks: Vec::new(),
        pods: "10.244.0.0/16".parse().unwrap(),
    };
    let stop = CancellationToken::new();
    let reporting = tokio::spawn({
        let (link, stop) = (scene.link.clone(), stop.clone());
        async move { link.report(told, stop).await }
    });
    let first = soon(scene.reports.recv()).await.unwrap();
    assert_eq!((first.phase(), first.observed_generation), (NodePhase::Joining, 4));
    board.phase(Phase::Ready, "well");
    let second = soon(scene.reports.recv()).await.unwrap();
    assert_eq!((second.phase(), second.message.as_str()), (NodePhase::Ready, "well"));
    assert!(second.facts.unwrap().cpus > 0);
    stop.cancel();
    soon(reporting).await.unwrap();
}

#[tokio::test]
async fn certificates_are_renewed_in_time_and_the_link_goes_on() {
    // One day of two lived: not yet due. With a quarter of a day left it is.
    let young = scene(1).await;
    assert!(!young.link.renew_if_due("n1", OffsetDateTime::now_utc()).await.unwrap());
    let (before, _) = young.pki.link().unwrap();
    let later = OffsetDateTime::now_utc() + time::Duration::hours(18);
    assert!(soon(young.link.renew_if_due("n1", later)).await.unwrap());
    let (after, _) = young.pki.link().unwrap();
    assert_ne!(before, after);
    soon(young.link.dial(alpn::TUNNEL)).await.unwrap();
}

#[tokio::test]
async fn an_ended_link_certificate_is_said_with_the_way_out() {
    let scene = scene(0).await;
    let (events, mut heard) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let watching = tokio::spawn(scene.link.clone().watch(3, events, stop.clone()));
    let Some(Event::Linked(text)) = soon(heard.recv()).await else { panic!("nothing was said") };
    assert!(text.contains("ended at") && text.contains("join command"), "{text}");
    let error = soon(scene.link.dial(alpn::TUNNEL)).await.unwrap_err();
    assert!(matches!(error, LinkError::Ended { .. }), "the tunnel does not try either: {error}");
    assert!(error.is_final() && said(Removal::default().status()).is_final());
    assert!(!said(Status::permission_denied("node n1 was removed from its cluster")).is_final());
    stop.cancel();
    soon(watching).await.unwrap();
}

#[tokio::test]
async fn a_serving_certificate_without_the_nodes_address_is_replaced_at_once() {
    let scene = scene(30).await;
    let (before, _) = scene.pki.link().unwrap();
    let stop = CancellationToken::new();
    let renewing = tokio::spawn(scene.link.clone().renew("n1".into(), [10, 244, 3, 1].into(), stop.clone()));
    soon(async {
        while scene.pki.link().unwrap().0 == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    stop.cancel();
    soon(renewing).await.unwrap();
}

/// An HTTP proxy that serves one CONNECT, for whoever knows the password, and counts.
pub(crate) async fn proxy(gateway: String, served: Arc<std::sync::atomic::AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            if !head.starts_with(&format!("CONNECT {gateway} HTTP/1.1\r\n")) || !head.contains("Basic bWU6YUBi\r\n") {
                client.write_all(b"HTTP/1.1 407 Who are you\r\n\r\n").await.unwrap();
                continue;
            }
            client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await.unwrap();
            served.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut server = TcpStream::connect(&gateway).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    format!("me:a%40b@{address}")
}

#[tokio::test]
async fn orders_and_tunnel_go_through_a_proxy() {
    let mut scene = scene(30).await;
    let served = Arc::default();
    let proxy = format!("http://{}", proxy(scene.link.server(), Arc::clone(&served)).await);
    scene.link.peer.lock().unwrap().dialer = Dialer::new(&scene.link.server(), Some(proxy), None).unwrap();
    let (events, mut heard) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let watching = tokio::spawn(scene.link.clone().watch(0, events, stop.clone()));
    let (_, platform) = soon(scene.watches.recv()).await.unwrap();
    platform.send(Ok(NodeConfig { generation: 1, ..NodeConfig::default() })).await.unwrap();
    assert!(matches!(next(&mut heard).await, Some(Event::Config(_))));
    soon(scene.link.dial(alpn::TUNNEL)).await.unwrap();
    assert_eq!(served.load(std::sync::atomic::Ordering::SeqCst), 2);
    stop.cancel();
    soon(watching).await.unwrap();
}

#[tokio::test]
async fn another_ca_is_not_trusted() {
    let scene = scene(30).await;
    let config = NodeConfig {
        server: scene.link.server(),
        label: "01m7".into(),
        domain: "test.internal".into(),
        platform_ca: Authority::new().pem,
        ..NodeConfig::default()
    };
    scene.link.follow(&config).unwrap();
    let error = soon(scene.link.dial(alpn::TUNNEL)).await.unwrap_err();
    assert!(error.to_string().contains("intercept"), "{error}");
}
