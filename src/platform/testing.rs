//! A gateway over a store, with nodes that are linked to it: what the platform's watches act on.

use std::sync::Arc;
use std::time::Duration;

use gateway::{Gateway, GatewayConfig, Limits, Peer, Sink, TlsStream};
use migrations::{
    Actor, Cluster, ClusterReport, Enrollment, ExposeSecret, Kek, NewCluster, NewJoinToken, NewOwner, NodeInfo, Store,
};
use provisioner::SystemKeys;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tenant_controlplane::id::NodeId;
use tenant_controlplane::pki::{ClusterPki, PkiContext, PlatformNames, PlatformPki, Validity, issue, link_node};
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::status::ClusterState;
use tenant_controlplane::version::KubernetesVersion;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::directory::StoreDirectory;

pub const DOMAIN: &str = "pilothouse.internal";
/// The longest that anything is waited for: it ends a test whose condition never comes, and measures nothing.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    pub store: Store,
    /// The same database as another process sees it: this one hears no news of what it does.
    pub other: Store,
    pub gateway: Gateway,
    pub cluster: Cluster,
    pub cancel: CancellationToken,
    pki: ClusterPki,
    platform: PlatformPki,
    /// Links that the gateway took.
    links: mpsc::UnboundedReceiver<(TlsStream, Peer)>,
    api: TcpListener,
    running: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.running.abort();
    }
}

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.unwrap()
}

/// Waits until the other end ends a connection.
pub async fn cut(connection: &mut (impl AsyncReadExt + Unpin)) {
    soon(async { while matches!(connection.read(&mut [0; 64]).await, Ok(1..)) {} }).await;
}

/// Whether a connection is open: nothing is to be read of it.
pub async fn is_open(connection: &mut (impl AsyncReadExt + Unpin)) -> bool {
    tokio::time::timeout(Duration::from_millis(50), connection.read(&mut [0; 1])).await.is_err()
}

pub fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

pub fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    certificates(pem).into_iter().for_each(|root| roots.add(root).unwrap());
    roots
}

pub fn key(pem: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap()
}

pub async fn cluster(store: &Store, endpoint: String) -> (Cluster, ClusterPki) {
    let token = store.identity().create_setup_token().await.unwrap();
    let owner = NewOwner { email: "a@b.c".into(), display_name: "A".into(), password_hash: "x".to_owned().into() };
    let (_, organization) = store.identity().complete_setup(token.expose_secret(), owner).await.unwrap();
    let project = store.identity().projects(organization.id).await.unwrap().remove(0).id;
    let (spec, name) = (ClusterSpec::new(KubernetesVersion::default()), "demo".parse().unwrap());
    let new = NewCluster { project, organization: organization.id, name, spec, actor: Actor::System };
    let cluster = store.clusters().insert(new).await.unwrap();
    let context = PkiContext::new(cluster.id, DOMAIN, &cluster.spec);
    let pki = ClusterPki::generate(&context, OffsetDateTime::now_utc(), &SystemKeys).unwrap();
    store.pki().put_new(cluster.id, &pki).await.unwrap();
    let report = ClusterReport {
        observed_generation: 1,
        state: ClusterState::Running,
        state_message: String::new(),
        conditions: Vec::new(),
        endpoint: Some(endpoint),
        problem: None,
    };
    store.clusters().report(cluster.id, report).await.unwrap();
    (cluster, pki)
}

impl World {
    pub async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("store.db").display());
        let open = || Store::connect(&url, Kek::from_bytes(&[7; 32]));
        let (store, other) = (open().await.unwrap(), open().await.unwrap());
        let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (cluster, pki) = cluster(&store, api.local_addr().unwrap().to_string()).await;
        let names = PlatformNames { domain: DOMAIN, names: &[], ips: &[] };
        let platform = PlatformPki::generate(&names, OffsetDateTime::now_utc(), &SystemKeys).unwrap();
        let (sender, links) = mpsc::unbounded_channel();
        let nobody: Sink = Arc::new(|_, _| {});
        let gateway = Gateway::new(GatewayConfig {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            domain: DOMAIN.to_owned(),
            server_cert: (certificates(&platform.server.cert_pem), key(&platform.server.key_pem)),
            peers: None,
            directory: StoreDirectory::new(store.clone(), Uuid::now_v7()),
            portal: nobody,
            link: Arc::new(move |stream, peer| drop(sender.send((stream, peer)))),
            limits: Limits::default(),
        })
        .unwrap();
        let (running, cancel) = (gateway.clone(), CancellationToken::new());
        let running = tokio::spawn(async move { running.run(CancellationToken::new()).await.unwrap() });
        Self { store, other, gateway, cluster, cancel, pki, platform, links, api, running, _dir: dir }
    }

    /// A machine that joined and has its link: its node, and its end of the link.
    pub async fn linked(&mut self, machine: &str) -> (NodeId, Client<TcpStream>) {
        let new = NewJoinToken {
            organization: self.cluster.organization,
            cluster: self.cluster.id,
            pool: None,
            node: None,
            expires_at: OffsetDateTime::now_utc() + time::Duration::hours(1),
            max_uses: 1,
            actor: Actor::System,
        };
        let (_, secret) = self.store.join_tokens().create(new).await.unwrap();
        let (token_secret, facts) = (secret.expose_secret(), NodeInfo::default());
        let enrollment =
            Enrollment { token_secret, fingerprint: machine, hostname: machine, requested_name: machine, facts };
        let node = self.store.nodes().enroll(enrollment).await.unwrap().node.id;
        let valid = Validity::from_now(OffsetDateTime::now_utc(), time::Duration::hours(1));
        let subject = link_node(self.cluster.id, node);
        let leaf = issue(&self.pki.link.current, &subject, valid, &SystemKeys).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots(&self.platform.ca.trust_pem()));
        let mut config = config.with_client_auth_cert(certificates(&leaf.cert_pem), key(&leaf.key_pem)).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let client = self.connect(config, &format!("{}.link.{DOMAIN}", self.cluster.label())).await;
        let (mut served, peer) = soon(self.links.recv()).await.unwrap();
        assert_eq!(peer.node, Some((self.cluster.id.to_string(), node.to_string())));
        tokio::spawn(async move { while matches!(served.read(&mut [0; 64]).await, Ok(1..)) {} });
        (node, client)
    }

    async fn connect(&self, config: ClientConfig, name: &str) -> Client<TcpStream> {
        let tcp = TcpStream::connect(self.gateway.local_addr()).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        soon(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.unwrap()
    }

    /// A client of the cluster's API server by its public name: the API server's end of the connection.
    pub async fn client(&self) -> TcpStream {
        let config = ClientConfig::builder().with_root_certificates(roots(&self.platform.ca.trust_pem()));
        let (connector, name) = (
            TlsConnector::from(Arc::new(config.with_no_client_auth())),
            format!("{}.api.{DOMAIN}", self.cluster.label()),
        );
        let address = self.gateway.local_addr();
        tokio::spawn(async move {
            let tcp = TcpStream::connect(address).await.unwrap();
            // Nobody answers: it waits until it is cut.
            let _ = connector.connect(ServerName::try_from(name).unwrap(), tcp).await;
        });
        let (mut served, _) = soon(self.api.accept()).await.unwrap();
        let mut hello = [0; 5];
        soon(served.read_exact(&mut hello)).await.unwrap();
        let mut rest = vec![0; usize::from(u16::from_be_bytes([hello[3], hello[4]]))];
        soon(served.read_exact(&mut rest)).await.unwrap();
        served
    }
}
