//! Two gateways on one PostgreSQL, each with what a process has of its own, and a node that is linked to one of them.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use gateway::{GatewayConfig, Limits, Sink};
use h2::server::SendResponse;
use http::{Request, Response};
use migrations::{Actor, Cluster, Enrollment, ExposeSecret, Kek, NewJoinToken, NodeInfo};
use node_protocol::{alpn, server_name};
use provisioner::SystemKeys;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tenant_controlplane::pki::{ClusterPki, LeafKind, PlatformNames, PlatformPki, Validity, issue, link_node};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::platform::directory::StoreDirectory;
use crate::platform::testing::{DOMAIN, certificates as parsed, cluster, key, roots, soon};

#[path = "../../../migrations/tests/store/postgres.rs"]
#[allow(dead_code, reason = "shared with the store's stories")]
mod postgres;

use postgres::Server;

/// Short, so that the end of a lease can be waited for.
const QUICK: Pace = Pace { every: Duration::from_millis(100), lease: Duration::from_secs(1) };

type Connection = TlsStream<TcpStream>;

/// A gateway as a process has it: its own store, and a runtime whose end is a kill.
struct Process {
    store: Store,
    info: GatewayInfo,
    gateway: Gateway,
    runtime: Option<Runtime>,
}

impl Drop for Process {
    /// Nothing is drained and nobody is told.
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Process {
    async fn start(store: Store, platform: &PlatformPki) -> Self {
        let nobody: Sink = Arc::new(|_, _| {});
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let info = start(&store, Uuid::now_v7(), address).await.unwrap();
        let gateway = Gateway::new(GatewayConfig {
            listener,
            domain: DOMAIN.to_owned(),
            server_cert: (parsed(&platform.server.cert_pem), key(&platform.server.key_pem)),
            peers: peers(&store, &info, &platform.ca.trust_pem()),
            directory: StoreDirectory::new(store.clone(), info.id),
            portal: nobody.clone(),
            link: nobody,
            limits: Limits::default(),
        })
        .unwrap();
        let runtime = Runtime::new().unwrap();
        let (running, kept, at) = (gateway.clone(), gateway.clone(), store.clone());
        runtime.spawn(async move { running.run(CancellationToken::new()).await });
        runtime.spawn(async move { keep(&at, &info, &kept, QUICK).await });
        Self { store, info, gateway, runtime: Some(runtime) }
    }
}

/// What both processes serve.
struct Installation {
    platform: PlatformPki,
    cluster: Cluster,
    pki: ClusterPki,
    node: NodeId,
}

impl Installation {
    async fn new(store: &Store) -> Self {
        let names = PlatformNames { domain: DOMAIN, names: &[], ips: &[] };
        let platform = PlatformPki::generate(&names, OffsetDateTime::now_utc(), &SystemKeys).unwrap();
        let (cluster, pki) = cluster(store, "127.0.0.1:1".to_owned()).await;
        let new = NewJoinToken {
            organization: cluster.organization,
            cluster: cluster.id,
            pool: None,
            node: None,
            expires_at: OffsetDateTime::now_utc() + time::Duration::hours(1),
            max_uses: 1,
            actor: Actor::System,
        };
        let (_, secret) = store.join_tokens().create(new).await.unwrap();
        let (token_secret, facts) = (secret.expose_secret(), NodeInfo::default());
        let enrollment = Enrollment { token_secret, fingerprint: "m1", hostname: "web", requested_name: "web", facts };
        let node = store.nodes().enroll(enrollment).await.unwrap().node.id;
        Self { platform, cluster, pki, node }
    }

    async fn connect(&self, at: &Process, name: String, leaf: (&str, &str), alpn: &[u8]) -> Connection {
        let config = ClientConfig::builder().with_root_certificates(roots(&self.platform.ca.trust_pem()));
        let mut config = config.with_client_auth_cert(parsed(leaf.0), key(leaf.1)).unwrap();
        config.alpn_protocols = vec![alpn.to_vec()];
        let tcp = TcpStream::connect(at.info.address).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        soon(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.unwrap()
    }

    /// The node's tunnel, whose agent sends back what it gets.
    async fn link(&self, at: &Process) -> JoinHandle<()> {
        let valid = Validity::from_now(OffsetDateTime::now_utc(), time::Duration::hours(1));
        let leaf = issue(&self.pki.link.current, &link_node(self.cluster.id, self.node), valid, &SystemKeys).unwrap();
        let name = server_name::link(&self.cluster.label(), DOMAIN);
        let tunnel = self.connect(at, name, (&leaf.cert_pem, &leaf.key_pem), alpn::TUNNEL).await;
        let agent = tokio::spawn(async move {
            let mut connection = h2::server::handshake(tunnel).await.unwrap();
            while let Some(Ok((request, reply))) = connection.accept().await {
                tokio::spawn(echo(request, reply));
            }
        });
        self.until_noted(at).await;
        agent
    }

    /// Waits until the store says that the node is linked to this gateway.
    async fn until_noted(&self, at: &Process) {
        soon(async {
            while at.store.nodes().link_gateway(self.node).await.unwrap() != Some(at.info.id) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// What an API server gets that asks a gateway for the node: the status line, and the stream behind it.
    async fn ask(&self, at: &Process) -> (String, Connection) {
        let (certificate, key) = (self.pki.cert(LeafKind::Egress), self.pki.key(LeafKind::Egress));
        let name = server_name::egress(&self.cluster.label(), DOMAIN);
        let mut stream = self.connect(at, name, (certificate, key), alpn::HTTP1).await;
        stream.write_all(b"CONNECT web:10250 HTTP/1.1\r\n\r\n").await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(stream.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        (head.lines().next().unwrap().to_owned(), stream)
    }

    async fn open(&self, at: &Process) -> Connection {
        let (status, stream) = self.ask(at).await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        stream
    }
}

async fn echo(request: Request<h2::RecvStream>, mut reply: SendResponse<Bytes>) {
    let mut recv = request.into_body();
    let Ok(mut send) = reply.send_response(Response::new(()), false) else { return };
    while let Some(Ok(data)) = recv.data().await {
        let _ = recv.flow_control().release_capacity(data.len());
        let mut rest = data;
        while !rest.is_empty() {
            send.reserve_capacity(rest.len());
            let Some(Ok(granted)) = poll_fn(|cx| send.poll_capacity(cx)).await else { return };
            let part = rest.split_to(granted.min(rest.len()));
            if send.send_data(part, false).is_err() {
                return;
            }
        }
    }
    let _ = send.send_data(Bytes::new(), true);
}

async fn comes_back(stream: &mut Connection, sent: &[u8]) {
    stream.write_all(sent).await.unwrap();
    stream.flush().await.unwrap();
    let mut back = vec![0; sent.len()];
    soon(stream.read_exact(&mut back)).await.unwrap();
    assert!(back == sent, "every byte, in order");
}

async fn store(server: &Server) -> Store {
    soon(async {
        loop {
            match Store::connect(&server.url("postgres"), Kek::from_bytes(&[7; 32])).await {
                Ok(store) => break store,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_reached_through_either_gateway_and_outlives_one() {
    if !postgres::is_wanted() {
        return;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = Server::start();
    let (store_one, store_two) = (store(&server).await, store(&server).await);
    let all = Installation::new(&store_one).await;
    let (one, two) = (Process::start(store_one, &all.platform).await, Process::start(store_two, &all.platform).await);
    let _agent = all.link(&one).await;
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
    for gateway in [&one, &two] {
        comes_back(&mut all.open(gateway).await, &bytes).await;
    }
    assert!(two.gateway.linked().is_empty(), "the second one has no tunnel of its own");
    let mut cut = all.open(&two).await;
    comes_back(&mut cut, b"before").await;

    let killed = one.info.id;
    let store_one = one.store.clone();
    drop(one);
    soon(async { while matches!(cut.read(&mut [0; 64]).await, Ok(1..)) {} }).await;
    let _again = all.link(&two).await;
    comes_back(&mut all.open(&two).await, &bytes).await;
    // What the first one may still have had to say changes nothing, and the second one notes its end.
    assert!(!store_one.nodes().clear_link(all.node, Some(killed)).await.unwrap());
    soon(async {
        while two.store.gateways().renew(killed, Duration::ZERO).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(two.store.nodes().load(all.node).await.unwrap().link_connected);

    // A row that lost the link, as when another gateway cleared it wrongly, is written again.
    assert!(store_one.nodes().clear_link(all.node, Some(two.info.id)).await.unwrap());
    all.until_noted(&two).await;
}
