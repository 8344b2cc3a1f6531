//! A client without any credential, who fills the one process that serves everybody: with answers that nobody reads, and with
//! connections that say nothing. Meanwhile the others are served.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::world::{World, fails, ok, text};

/// How long answers are held.
const HELD: Duration = Duration::from_secs(60);
/// Connections and streams of the one who reads nothing.
const UNREAD: (u8, u32) = (64, 200);
/// Addresses that those come from.
const SOURCES: u8 = 8;
/// Addresses of the one who says nothing, and connections of each: all permits of unauthenticated clients at the portal.
const IDLE: (u8, usize) = (8, 256);
/// What the platform may hold above rest, KiB.
const MOST: u64 = 300 * 1024;
/// Everything that is asked meanwhile must be answered; this only ends a test whose answer never comes.
const PATIENCE: Duration = Duration::from_secs(60);

const DOMAIN: &str = "pilothouse.internal";

/// The one port, as an unauthenticated client sees it.
#[derive(Clone)]
struct Gateway {
    address: SocketAddr,
    trust: Arc<ClientConfig>,
}

type Tls = TlsStream<TcpStream>;

impl Gateway {
    fn of(world: &World) -> Self {
        let port = world.field("gateway").rsplit(':').next().unwrap().parse().unwrap();
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(world.field("ca_file")).unwrap() {
            roots.add(authority.unwrap()).unwrap();
        }
        let mut trust = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        trust.alpn_protocols = vec![b"h2".to_vec()];
        Self { address: (Ipv4Addr::LOCALHOST, port).into(), trust: Arc::new(trust) }
    }

    /// TLS from one of the machine's own addresses. `None`: it was closed before it stood.
    async fn connect(&self, from: Ipv4Addr, name: &str) -> Option<Tls> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let tcp = socket.connect(self.address).await.ok()?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(self.trust.clone()).connect(name, tcp).await.ok()
    }

    /// The status of an answer to one request, by HTTP/2.
    async fn ask(&self, from: Ipv4Addr, path: &str) -> u16 {
        let asked = async {
            let tls = self.connect(from, &portal()).await.expect("a place");
            let (client, connection) = h2::client::handshake(tls).await.unwrap();
            let running = tokio::spawn(connection);
            let request = hyper::Request::get(format!("https://{}{path}", portal())).body(()).unwrap();
            let (answer, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
            let status = answer.await.expect("an answer").status().as_u16();
            running.abort();
            status
        };
        timeout(PATIENCE, asked).await.expect("an answer in time")
    }

    /// The gRPC status of an enrollment that asks for nothing.
    async fn enroll(&self, from: Ipv4Addr) -> String {
        let asked = async {
            let tls = self.connect(from, &format!("link.{DOMAIN}")).await.expect("a place");
            let (client, connection) = h2::client::handshake(tls).await.unwrap();
            let running = tokio::spawn(connection);
            let uri = format!("https://link.{DOMAIN}/pilothouse.agent.v1.Enrollment/Enroll");
            let request = hyper::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
            let mut ready = client.ready().await.unwrap();
            let (answer, mut body) = ready.send_request(request.body(()).unwrap(), false).unwrap();
            body.send_data(axum::body::Bytes::from_static(&[0; 5]), true).unwrap();
            let answer = answer.await.expect("an answer");
            running.abort();
            answer.headers()["grpc-status"].to_str().unwrap().to_owned()
        };
        timeout(PATIENCE, asked).await.expect("an answer in time")
    }
}

fn portal() -> String {
    format!("portal.{DOMAIN}")
}

/// An HTTP/2 frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Windows as large as they can be, and a request for the agent on each of so many streams, whatever the server allows.
fn holding(streams: u32) -> Vec<u8> {
    let largest = ((1_u32 << 31) - 1).to_be_bytes();
    let path = "/install/pilothouse-node";
    let authority = portal();
    // HPACK (RFC 7541): `:method GET` and `:scheme https` by index, `:path` and `:authority` as literals.
    let mut fields = vec![0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
    fields.extend(path.bytes());
    fields.extend([0x01, u8::try_from(authority.len()).unwrap()]);
    fields.extend(authority.bytes());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[&[0, 4], &largest[..]].concat()));
    bytes.extend(frame(8, 0, 0, &((1_u32 << 31) - 1 - 65_535).to_be_bytes()));
    (0..streams).for_each(|at| bytes.extend(frame(1, 5, 2 * at + 1, &fields)));
    bytes
}

/// Asks and never reads, again and again until it is aborted.
async fn hold(gateway: Gateway, from: Ipv4Addr) {
    loop {
        if let Some(mut tls) = gateway.connect(from, &portal()).await {
            let asked = tls.write_all(&holding(UNREAD.1)).await.is_ok() && tls.flush().await.is_ok();
            if asked {
                sleep(HELD).await;
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// The platform's resident memory, KiB (proc_pid_status(5)).
fn resident(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.ready["pid"])).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What everybody else does meanwhile, once; the longest it took.
async fn others(gateway: &Gateway, kubectl: Vec<Command>) -> Duration {
    let mut longest = Duration::ZERO;
    let mut took = |since: Instant| longest = longest.max(since.elapsed());
    let begun = Instant::now();
    assert_eq!(gateway.ask(Ipv4Addr::new(127, 0, 9, 1), "/healthz").await, 200);
    took(begun);
    for mut kubectl in kubectl {
        let begun = Instant::now();
        let asked = tokio::task::spawn_blocking(move || kubectl.output().unwrap()).await.unwrap();
        assert!(asked.status.success(), "kubectl: {}", text(&asked.stderr));
        took(begun);
    }
    let begun = Instant::now();
    assert_eq!(gateway.enroll(Ipv4Addr::new(127, 0, 9, 2)).await, "3", "INVALID_ARGUMENT: it asked for nothing");
    took(begun);
    longest
}

/// Twelve thousand answers that nobody reads: memory stays where it was, and all others are answered.
async fn unread_answers_fill_nothing(gateway: &Gateway, world: &World, kubectl: impl Fn() -> Vec<Command>) {
    let rest = resident(world);
    let attacker = |at: u8| tokio::spawn(hold(gateway.clone(), Ipv4Addr::new(127, 0, 0, 2 + at % SOURCES)));
    let attackers: Vec<_> = (0..UNREAD.0).map(attacker).collect();
    let (begun, mut most, mut longest) = (Instant::now(), 0, Duration::ZERO);
    while begun.elapsed() < HELD {
        longest = longest.max(others(gateway, kubectl()).await);
        most = most.max(resident(world));
        sleep(Duration::from_millis(500)).await;
    }
    attackers.iter().for_each(tokio::task::JoinHandle::abort);
    eprintln!("unread answers: {rest} KiB at rest, {most} KiB at most; the slowest of the others took {longest:?}");
    assert!(most <= rest + MOST, "{most} KiB resident, {rest} KiB at rest");
}

/// Connections from one address that speak HTTP/2 and ask nothing.
async fn idle_from(gateway: &Gateway, host: u8, name: String) -> Vec<Tls> {
    let mut idle = Vec::new();
    for _ in 0..IDLE.1 {
        let Some(mut tls) = gateway.connect(Ipv4Addr::new(127, 0, 0, host), &name).await else { continue };
        if tls.write_all(&holding(0)).await.is_ok() && tls.flush().await.is_ok() {
            idle.push(tls);
        }
    }
    idle
}

/// Every permit of unauthenticated clients is held by connections that say nothing: somebody else gets one, and so does a machine that
/// enrolls.
async fn idle_connections_keep_nobody_out(gateway: &Gateway, kubectl: impl Fn() -> Vec<Command>) {
    let people = (2..2 + IDLE.0).map(|host| idle_from(gateway, host, portal()));
    let machines = [2, 3].map(|host| idle_from(gateway, host, format!("link.{DOMAIN}")));
    let mut idle: Vec<Tls> = futures::future::join_all(people).await.into_iter().flatten().collect();
    let _idle_machines = futures::future::join_all(machines).await;
    let longest = others(gateway, kubectl()).await;
    eprintln!("{} idle connections: the slowest of the others took {longest:?}", idle.len());
    // The address that holds the most may go on asking too: its own idlest makes room.
    assert_eq!(gateway.ask(Ipv4Addr::new(127, 0, 0, 2), "/healthz").await, 200);
    let mut said = [0; 1024];
    let first = idle.first_mut().unwrap();
    let closed = async { while matches!(first.read(&mut said).await, Ok(1..)) {} };
    timeout(PATIENCE, closed).await.expect("the idlest connection was closed");
}

/// Whoever sees a name that nobody has gets an alert each time, and nothing else suffers.
async fn unknown_names_cost_little(gateway: &Gateway) {
    for _ in 0..200 {
        assert!(gateway.connect(Ipv4Addr::LOCALHOST, &format!("{}.api.{DOMAIN}", "z".repeat(26))).await.is_none());
    }
}

#[test]
fn story_attack_gateway() {
    let Some(world) = World::up("gateatt") else { return };
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let kubeconfigs = ["demo", "shop"].map(|cluster| {
        ok(&mut world.user(&["cluster", "create", cluster, "--wait"]));
        world.kubeconfig(cluster)
    });
    let kubectl = || {
        let ask = |file: &PathBuf| world.kubectl(file, &["get", "namespaces", "--request-timeout=30s"]);
        kubeconfigs.iter().map(ask).collect::<Vec<_>>()
    };
    kubectl().iter_mut().for_each(|ask| drop(ok(ask)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let gateway = Gateway::of(&world);
        unread_answers_fill_nothing(&gateway, &world, kubectl).await;
        idle_connections_keep_nobody_out(&gateway, kubectl).await;
        unknown_names_cost_little(&gateway).await;
    });
    drop(runtime);
    let (code, _) = fails(world.user(&["cluster", "list"]).env("PILOTHOUSE_TOKEN", "pilothouse_nonsense"));
    assert_eq!(code, Some(4), "the portal answers as before");
    world.down();
}
