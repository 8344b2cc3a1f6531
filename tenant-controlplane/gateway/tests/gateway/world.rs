//! A gateway, two clusters and a directory that can be told what to say.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use gateway::{
    ClusterRoute, Directory, DirectoryError, Gateway, GatewayConfig, Limits, NodeRoute, Peer, Peers, RemoteLink, Sink,
    TlsStream,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use crate::pki::{Authority, Leaf};

pub const DOMAIN: &str = "pilothouse.internal";
pub const LABEL_A: &str = "01k9zq0000000000000000000a";
pub const LABEL_B: &str = "01k9zq0000000000000000000b";
pub const A: &str = "cls_01k9zq0000000000000000000a";
pub const B: &str = "cls_01k9zq0000000000000000000b";

pub type Client = tokio_rustls::client::TlsStream<TcpStream>;
type Sunk = mpsc::UnboundedReceiver<(TlsStream, Peer)>;

/// The directory of the tests.
#[derive(Default)]
pub struct Book {
    pub clusters: Mutex<HashMap<String, ClusterRoute>>,
    pub deleted: Mutex<HashMap<String, ClusterRoute>>,
    pub nodes: Mutex<HashMap<(String, String), NodeRoute>>,
    pub events: Mutex<Vec<(String, String, bool)>>,
    /// Cluster A's links, at whichever gateway.
    pub remote: Mutex<Vec<RemoteLink>>,
    pub down: AtomicBool,
    /// How often a cluster was looked up.
    pub asked: AtomicUsize,
}

#[async_trait]
impl Directory for Book {
    async fn cluster(&self, label: &str) -> Result<Option<ClusterRoute>, DirectoryError> {
        self.asked.fetch_add(1, SeqCst);
        self.check()?;
        Ok(self.clusters.lock().unwrap().get(label).cloned())
    }

    async fn deleted_cluster(&self, label: &str) -> Result<Option<ClusterRoute>, DirectoryError> {
        self.check()?;
        Ok(self.deleted.lock().unwrap().get(label).cloned())
    }

    async fn node(&self, cluster: &str, node: &str) -> Result<Option<NodeRoute>, DirectoryError> {
        self.check()?;
        Ok(self.nodes.lock().unwrap().get(&(cluster.to_owned(), node.to_owned())).cloned())
    }

    async fn owner(&self, cluster: &str, address: Ipv4Addr) -> Result<Option<String>, DirectoryError> {
        self.check()?;
        let nodes = self.nodes.lock().unwrap();
        let own = nodes.iter().find(|((owner, _), node)| owner == cluster && node.pod_cidr.contains(&address));
        Ok(own.map(|(_, node)| node.name.clone()))
    }

    async fn remote_links(&self, cluster: &str) -> Result<Vec<RemoteLink>, DirectoryError> {
        self.check()?;
        Ok(if cluster == A { self.remote.lock().unwrap().clone() } else { Vec::new() })
    }

    async fn link_changed(&self, cluster: &str, node: &str, connected: bool) {
        self.events.lock().unwrap().push((cluster.to_owned(), node.to_owned(), connected));
    }
}

impl Book {
    fn check(&self) -> Result<(), DirectoryError> {
        if self.down.load(SeqCst) { Err(DirectoryError::new("database is locked")) } else { Ok(()) }
    }
}

/// Everything a test needs.
pub struct World {
    pub gateway: Gateway,
    pub address: SocketAddr,
    /// The gateway's id among others.
    pub id: String,
    pub book: Arc<Book>,
    pub platform: Arc<Authority>,
    pub link_a: Arc<Authority>,
    pub link_b: Arc<Authority>,
    pub api_ca: Arc<Authority>,
    pub portal: Sunk,
    pub link: Sunk,
    pub cancel: CancellationToken,
    pub running: JoinHandle<()>,
}

/// What gateways of one installation share.
struct Installation {
    book: Arc<Book>,
    platform: Arc<Authority>,
    link_a: Arc<Authority>,
    link_b: Arc<Authority>,
    api_ca: Arc<Authority>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    /// Cluster A has an API server that echoes in TLS, cluster B has none. Node `web-1` is `nod_1` of A.
    pub async fn with(limits: Limits) -> Self {
        let _ = aws_lc_rs::default_provider().install_default();
        let authority = |name: &str| Arc::new(Authority::new(name));
        let (platform, api_ca) = (authority("platform"), authority("api serving"));
        let (link_a, link_b) = (authority("link a"), authority("link b"));
        let api = serve_api(api_ca.server(&[&format!("{LABEL_A}.api.{DOMAIN}")])).await;
        let book = Arc::new(Book::default());
        book.add_cluster(LABEL_A, A, Some(api), &link_a);
        book.add_cluster(LABEL_B, B, None, &link_b);
        book.add_node(A, "nod_1", "web-1", "10.244.1.0/24");
        Self::start(Installation { book, platform, link_a, link_b, api_ca }, limits, 1).await
    }

    /// Another gateway of the same installation.
    pub async fn beside(&self, limits: Limits) -> Self {
        let (book, platform) = (self.book.clone(), self.platform.clone());
        let (link_a, link_b, api_ca) = (self.link_a.clone(), self.link_b.clone(), self.api_ca.clone());
        Self::start(Installation { book, platform, link_a, link_b, api_ca }, limits, 2).await
    }

    async fn start(installation: Installation, limits: Limits, number: usize) -> Self {
        let Installation { book, platform, link_a, link_b, api_ca } = installation;
        let own = platform.gateway(&[
            &format!("portal.{DOMAIN}"),
            &format!("link.{DOMAIN}"),
            &format!("*.link.{DOMAIN}"),
            &format!("*.egress.{DOMAIN}"),
            &format!("*.gateway.{DOMAIN}"),
            "127.0.0.1",
        ]);
        let id = format!("{number:032x}");
        let ((portal_sink, portal), (link_sink, link)) = (sink(), sink());
        let gateway = Gateway::new(GatewayConfig {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            domain: DOMAIN.to_owned(),
            server_cert: (own.chain, own.key),
            peers: Some(Peers { id: id.clone(), trust: vec![platform.certificate.clone()] }),
            directory: book.clone(),
            portal: portal_sink,
            link: link_sink,
            limits,
        })
        .unwrap();
        let cancel = CancellationToken::new();
        let running = tokio::spawn({
            let (gateway, cancel) = (gateway.clone(), cancel.clone());
            async move { gateway.run(cancel).await.unwrap() }
        });
        let address = gateway.local_addr();
        Self { gateway, address, id, book, platform, link_a, link_b, api_ca, portal, link, cancel, running }
    }

    pub async fn tcp(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp
    }

    /// TLS to the gateway's own certificate.
    pub async fn tls(&self, name: &str, alpn: &[&[u8]], leaf: Option<Leaf>) -> std::io::Result<Client> {
        self.tls_trusting(self.platform.roots(), name, (alpn, leaf)).await
    }

    pub async fn tls_trusting(
        &self,
        roots: RootCertStore,
        name: &str,
        (alpn, leaf): (&[&[u8]], Option<Leaf>),
    ) -> std::io::Result<Client> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(client_config(roots, alpn, leaf)).connect(name, self.tcp().await).await
    }

    /// TLS to the gateway's own certificate over a connection that stands, with `h2`.
    pub async fn tls_over(&self, tcp: TcpStream, name: &str) -> std::io::Result<Client> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(client_config(self.platform.roots(), &[b"h2"], None)).connect(name, tcp).await
    }

    /// A node's link with this ALPN.
    pub async fn identity(&self, alpn: &[u8], leaf: Leaf) -> std::io::Result<Client> {
        self.tls(&format!("{LABEL_A}.link.{DOMAIN}"), &[alpn], Some(leaf)).await
    }

    /// Waits for a link event.
    pub async fn written(&self, node: &str, connected: bool) {
        until(|| {
            let events = self.book.events.lock().unwrap();
            events.iter().rev().find(|(_, id, _)| id == node).is_some_and(|(_, _, last)| *last == connected)
        })
        .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Book {
    pub fn add_cluster(&self, label: &str, id: &str, api: Option<SocketAddr>, link: &Authority) {
        let route = ClusterRoute { cluster_id: id.to_owned(), api, link_trust: vec![link.certificate.clone()] };
        self.clusters.lock().unwrap().insert(label.to_owned(), route);
    }

    pub fn add_node(&self, cluster: &str, id: &str, name: &str, pods: &str) {
        let route = NodeRoute { name: name.to_owned(), pod_cidr: pods.parse().unwrap() };
        self.nodes.lock().unwrap().insert((cluster.to_owned(), id.to_owned()), route);
    }
}

pub fn client_config(roots: RootCertStore, alpn: &[&[u8]], leaf: Option<Leaf>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match leaf {
        Some(leaf) => builder.with_client_auth_cert(leaf.chain, leaf.key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn sink() -> (Sink, Sunk) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Arc::new(move |stream, peer| drop(sender.send((stream, peer)))), receiver)
}

/// A TLS server with its own certificate that echoes, and answers the end with an end.
async fn serve_api(leaf: Leaf) -> SocketAddr {
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(leaf.chain, leaf.key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(tcp).await {
                    let (mut reader, mut writer) = tokio::io::split(stream);
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                    let _ = writer.shutdown().await;
                }
            });
        }
    });
    address
}

/// Sends bytes and expects them back.
pub async fn echo(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), text: &[u8]) {
    stream.write_all(text).await.unwrap();
    stream.flush().await.unwrap();
    let mut back = vec![0; text.len()];
    timeout(Duration::from_secs(20), stream.read_exact(&mut back)).await.expect("echo in time").unwrap();
    assert_eq!(back, text);
}

/// Waits until `condition` holds.
pub async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), waiting).await.expect("condition in time");
}

/// The next stream a sink got.
pub async fn next(sunk: &mut Sunk) -> (TlsStream, Peer) {
    timeout(Duration::from_secs(20), sunk.recv()).await.expect("sink in time").unwrap()
}
