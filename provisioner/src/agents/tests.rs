//! The agents' side of the platform, over real gRPC and a real store.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use migrations::{Actor, ConfigVersion, ExposeSecret, NewJoinToken, NewPool, Node, PoolKind};
use node_protocol::enrollment_client::EnrollmentClient;
use node_protocol::node_link_client::NodeLinkClient;
use node_protocol::refusal::Reason;
use node_protocol::{Check, CheckStatus, MachineFacts, NodePhase, PartKind, Refusal, Signed};
use tenant_controlplane::id::NodePoolId;
use tenant_controlplane::status::NodeState;
use tenant_controlplane::version::KubernetesVersion;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use x509_parser::pem::parse_x509_pem;

use super::*;
use crate::engine::{Outcome, Reconcile};
use crate::parts::Part;
use crate::testing::{World, installation};

/// One part of 700 KiB.
struct OnePart(File, Vec<u8>);

const SHA: &str = "ab";

impl OnePart {
    fn new() -> Self {
        let data: Vec<u8> = (0..700 * 1024_u32).map(|place| place.to_le_bytes()[1]).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&data).unwrap();
        Self(file, data)
    }
}

impl Parts for OnePart {
    fn list(&self, version: KubernetesVersion) -> Vec<Part> {
        let (name, kind, image) = ("kubelet".to_owned(), PartKind::Binary, String::new());
        vec![Part {
            name,
            kind,
            version: version.to_string(),
            sha256: SHA.to_owned(),
            size: self.1.len() as u64,
            image,
        }]
    }

    fn signed(&self, version: KubernetesVersion) -> Option<Signed> {
        Some(Signed { manifest: version.to_string(), key: "ed25519:a".into(), ..Signed::default() })
    }

    fn open(&self, _: &str) -> std::io::Result<File> {
        self.0.try_clone()
    }

    fn keep_dir(&self) -> std::path::PathBuf {
        std::env::temp_dir()
    }
}

struct Rig {
    world: World,
    cluster: ClusterId,
    agents: Agents,
    part: Arc<OnePart>,
    cancel: CancellationToken,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Rig {
    async fn new() -> Self {
        let world = World::new().await;
        let cluster = world.cluster("demo").await.id;
        world.start_pods(cluster, [100, 64, 0, 3]);
        world.reconcile_cluster(cluster).await.unwrap();
        let part = Arc::new(OnePart::new());
        let agents = Agents::new(world.store.clone(), Arc::clone(&part) as _, Arc::new(installation()));
        Self { world, cluster, agents, part, cancel: CancellationToken::new() }
    }

    /// A connection whose certificate, if any, says `caller`.
    async fn channel(&self, caller: Option<Caller>) -> Channel {
        self.channel_of(Endpoint::from_static("http://link.test"), caller).await
    }

    async fn channel_of(&self, endpoint: Endpoint, caller: Option<Caller>) -> Channel {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (agents, cancel) = (self.agents.clone(), self.cancel.clone());
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            agents.serve(stream, caller, cancel).await;
        });
        let connect = move |_| async move { TcpStream::connect(address).await.map(TokioIo::new) };
        endpoint.connect_with_connector(tower::service_fn(connect)).await.unwrap()
    }

    async fn enrollment(&self) -> EnrollmentClient<Channel> {
        EnrollmentClient::new(self.channel(None).await)
    }

    async fn link(&self, cluster: ClusterId, node: NodeId) -> NodeLinkClient<Channel> {
        NodeLinkClient::new(self.channel(Some(Caller { cluster, node })).await)
    }

    async fn token(&self) -> String {
        self.token_of(None).await
    }

    async fn token_of(&self, pool: Option<NodePoolId>) -> String {
        let (organization, expires_at) =
            (self.world.organization.id, OffsetDateTime::now_utc() + time::Duration::hours(1));
        let new = NewJoinToken {
            organization,
            cluster: self.cluster,
            pool,
            node: None,
            expires_at,
            max_uses: 1,
            actor: Actor::System,
        };
        let (_, secret) = self.world.store.join_tokens().create(new).await.unwrap();
        secret.expose_secret().to_owned()
    }

    async fn join(&self, name: &str) -> (EnrollReply, Node) {
        self.join_as("machine-1", name).await
    }

    async fn join_as(&self, machine: &str, name: &str) -> (EnrollReply, Node) {
        let request = request(&self.token().await, machine, name);
        let reply = self.enrollment().await.enroll(request).await.unwrap().into_inner();
        let node = self.world.store.nodes().load(reply.node_id.parse().unwrap()).await.unwrap();
        (reply, node)
    }
}

fn csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:masters");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn request(token: &str, fingerprint: &str, name: &str) -> EnrollRequest {
    let addresses = ["10.0.0.5", "127.0.0.1"].map(ToOwned::to_owned).to_vec();
    let facts = MachineFacts { hostname: "web-1".into(), os: "Debian 12".into(), addresses, ..MachineFacts::default() };
    EnrollRequest {
        token: token.to_owned(),
        fingerprint: fingerprint.to_owned(),
        facts: Some(facts),
        link_csr: csr(),
        kubelet_csr: csr(),
        proxy_csr: csr(),
        serving_csr: csr(),
        node_name: name.to_owned(),
    }
}

fn names(pem: &str) -> (String, String) {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let sans = certificate.subject_alternative_name().unwrap().map(|sans| format!("{:?}", sans.value.general_names));
    (certificate.subject().to_string(), sans.unwrap_or_default())
}

fn days(pem: &str) -> i64 {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
    let validity = pem.parse_x509().unwrap().validity().clone();
    (validity.not_after.timestamp() - OffsetDateTime::now_utc().unix_timestamp() + 3600) / 86_400
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.unwrap()
}

#[tokio::test]
async fn a_machine_joins_as_who_the_platform_says() {
    let rig = Rig::new().await;
    let (reply, node) = rig.join("web-1").await;
    let certificates = reply.certificates.unwrap();
    let (link, _) = names(&certificates.link_cert);
    assert!(link.contains(&format!("CN={}", node.id)) && link.contains(&rig.cluster.to_string()), "{link}");
    assert_eq!(names(&certificates.kubelet_cert).0, "O=system:nodes, CN=system:node:web-1".to_owned());
    assert_eq!(
        names(&certificates.proxy_cert).0,
        "O=pilothouse:kube-proxies, CN=pilothouse:kube-proxy:web-1".to_owned()
    );
    let (_, serving) = names(&certificates.serving_cert);
    assert!(
        serving.contains("web-1")
            && serving.contains("10, 244, 0, 1")
            && !serving.contains("10, 0, 0, 5")
            && !serving.contains("evil"),
        "{serving}"
    );
    let config = reply.config.unwrap();
    assert_eq!((config.generation, config.node_name.as_str(), config.dns_ip.as_str()), (1, "web-1", "10.96.0.10"));
    assert_eq!((config.parts.len(), config.api_address.as_str()), (1, "198.18.0.1:6443"));
    assert_eq!(node.facts.os, "Debian 12");
}

#[tokio::test]
async fn tokens_are_refused_as_they_should_be() {
    let rig = Rig::new().await;
    let mut client = rig.enrollment().await;
    let token = rig.token().await;
    let refused = |result: Reply<EnrollReply>| result.unwrap_err().code();
    assert_eq!(refused(client.enroll(request("pilothouse_join_x", "m", "a")).await), Code::Unauthenticated);
    assert_eq!(refused(client.enroll(request(&token, "", "a")).await), Code::InvalidArgument);
    let first = client.enroll(request(&token, "m1", "a")).await.unwrap().into_inner();
    let again = client.enroll(request(&token, "m1", "a")).await.unwrap().into_inner();
    assert_eq!(first.node_id, again.node_id);
    let elsewhere = refused(client.enroll(request(&token, "m2", "b")).await);
    assert!(matches!(elsewhere, Code::PermissionDenied | Code::Unauthenticated), "{elsewhere}");
    let rubbish = EnrollRequest { link_csr: "x".into(), ..request(&rig.token().await, "m3", "c") };
    assert_eq!(refused(client.enroll(rubbish).await), Code::InvalidArgument);
}

#[tokio::test]
async fn who_is_not_the_node_gets_nothing() {
    let rig = Rig::new().await;
    let (_, node) = rig.join("web-1").await;
    let other_cluster = ClusterId::from_uuid(uuid::Uuid::now_v7());
    let mut link = rig.link(other_cluster, node.id).await;
    assert_eq!(link.watch(WatchRequest::default()).await.unwrap_err().code(), Code::PermissionDenied);
    let mut link = rig.link(rig.cluster, NodeId::from_uuid(uuid::Uuid::now_v7())).await;
    let unknown = link.report(NodeReport::default()).await.unwrap_err();
    assert!(matches!(Refusal::of(&unknown), Some(Reason::Unknown(_))), "{unknown}");
    let mut nobody = NodeLinkClient::new(rig.channel(None).await);
    assert_eq!(
        nobody.watch(WatchRequest::default()).await.unwrap_err().code(),
        Code::Unimplemented,
        "only enrollment is there"
    );
    let mut enrollment = EnrollmentClient::new(rig.channel(Some(Caller { cluster: rig.cluster, node: node.id })).await);
    let request = request(&rig.token().await, "m", "x");
    assert_eq!(enrollment.enroll(request).await.unwrap_err().code(), Code::Unimplemented);
}

fn plain(chunk: Chunk) -> Vec<u8> {
    match chunk.unpacked {
        0 => chunk.data,
        length => zstd::bulk::decompress(&chunk.data, length as usize).unwrap(),
    }
}

#[tokio::test]
async fn parts_come_whole_and_from_an_offset_packed_or_not() {
    let rig = Rig::new().await;
    let (_, node) = rig.join("web-1").await;
    let mut link = rig.link(rig.cluster, node.id).await;
    for (offset, zstd) in [(0, false), (0, true), (300_000, true), (300_000, false), (rig.part.1.len() as u64, true)] {
        let request = FetchRequest { sha256: SHA.into(), offset, zstd };
        let mut stream = link.fetch(request).await.unwrap().into_inner();
        let (mut got, mut traveled) = (Vec::new(), 0);
        while let Some(chunk) = soon(stream.message()).await.unwrap() {
            traveled += chunk.data.len();
            got.extend(plain(chunk));
        }
        let wanted = &rig.part.1[usize::try_from(offset).unwrap()..];
        assert!(got == wanted, "offset {offset}: {} bytes", got.len());
        let packed = traveled < wanted.len() / 2;
        assert!(wanted.is_empty() || packed == zstd, "{traveled} bytes for {}", wanted.len());
    }
    let code = |result: Result<_, Status>| result.map(|_: Response<_>| ()).unwrap_err().code();
    assert_eq!(code(link.fetch(FetchRequest { sha256: "cd".into(), ..FetchRequest::default() }).await), Code::NotFound);
    assert_eq!(
        code(link.fetch(FetchRequest { sha256: SHA.into(), offset: 1 << 40, zstd: false }).await),
        Code::OutOfRange
    );
}

#[tokio::test]
async fn the_configuration_is_told_at_once_and_a_removal_as_it_happens() {
    let rig = Rig::new().await;
    let (reply, node) = rig.join("web-1").await;
    let mut link = rig.link(rig.cluster, node.id).await;
    let mut stream = link.watch(WatchRequest::default()).await.unwrap().into_inner();
    let first = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(Some(&first), reply.config.as_ref(), "the same content has the same generation");
    rig.world.store.nodes().set_link(node.id, uuid::Uuid::nil()).await.unwrap();
    rig.world.store.nodes().request_deletion(rig.world.organization.id, node.id, Actor::System).await.unwrap();
    let reconcile = || rig.world.ctx.reconcile(migrations::WorkKind::Node, node.id.uuid());
    assert!(
        matches!(reconcile().await.unwrap(), Outcome::Waiting { .. }),
        "it has no pods that would have to move first"
    );
    let reported = soon(stream.message()).await.unwrap_err();
    assert_eq!(removed(&reported), Some((node.id, rig.cluster)));
    let renew = RenewRequest { link_csr: csr(), kubelet_csr: csr(), proxy_csr: csr(), serving_csr: csr() };
    assert!(removed(&link.renew(renew).await.unwrap_err()).is_some(), "no certificate after the tombstone");
    link.report(NodeReport { phase: NodePhase::Reset.into(), ..NodeReport::default() }).await.unwrap();
    let unrefused = reconcile().await.unwrap();
    assert!(matches!(unrefused, Outcome::Waiting { .. }), "until its API server was seen to refuse its certificates");
    rig.world.converge().await;
    assert_eq!(reconcile().await.unwrap(), Outcome::Gone);
    assert!(rig.world.store.nodes().load(node.id).await.is_err());
    let again = link.watch(WatchRequest::default()).await.unwrap_err();
    assert_eq!(removed(&again), Some((node.id, rig.cluster)), "whoever was off is told when it comes back");
}

/// Whom a refusal calls removed.
fn removed(status: &Status) -> Option<(NodeId, ClusterId)> {
    match Refusal::of(status) {
        Some(Reason::Removal(reported)) => {
            Some((reported.node_id.parse().unwrap(), reported.cluster_id.parse().unwrap()))
        }
        _ => None,
    }
}

#[tokio::test]
async fn yesterdays_database_removes_nobody() {
    let (today, yesterday) = (Rig::new().await, Rig::new().await);
    let (_, node) = today.join("web-1").await;
    // Its row was restored away: the cluster is there or not, and there is no tombstone.
    for cluster in [yesterday.cluster, today.cluster] {
        let mut link = yesterday.link(cluster, node.id).await;
        let refusals = [
            link.watch(WatchRequest { known_generation: 1 }).await.map(drop).unwrap_err(),
            link.report(NodeReport::default()).await.map(drop).unwrap_err(),
            link.renew(RenewRequest::default()).await.map(drop).unwrap_err(),
            link.fetch(FetchRequest::default()).await.map(drop).unwrap_err(),
        ];
        for refused in refusals {
            assert!(
                matches!(Refusal::of(&refused), Some(Reason::Unknown(reported)) if reported.node_id == node.id.to_string())
            );
            assert!(!refused.message().contains("removed"), "older agents go by the text: {refused}");
        }
    }
}

#[tokio::test]
async fn a_tombstone_is_for_its_own_cluster() {
    let rig = Rig::new().await;
    let (_, node) = rig.join("web-1").await;
    rig.world.store.nodes().purge(node.id).await.unwrap();
    let mut link = rig.link(rig.cluster, node.id).await;
    assert!(removed(&link.watch(WatchRequest::default()).await.unwrap_err()).is_some());
    let mut link = rig.link(ClusterId::from_uuid(uuid::Uuid::now_v7()), node.id).await;
    assert!(removed(&link.watch(WatchRequest::default()).await.unwrap_err()).is_none());
}

#[tokio::test]
async fn a_machine_that_was_off_learns_of_its_clusters_end() {
    let rig = Rig::new().await;
    let (_, node) = rig.join("web-1").await;
    rig.world.store.clusters().purge(rig.cluster).await.unwrap();
    let mut link = rig.link(rig.cluster, node.id).await;
    assert_eq!(removed(&link.watch(WatchRequest::default()).await.unwrap_err()), Some((node.id, rig.cluster)));
    let left = rig.world.store.tombstones().cluster(&rig.cluster.suffix()).await.unwrap().unwrap();
    assert!(left.link_trust_pem.contains("BEGIN CERTIFICATE"), "by which the gateway knows it");
}

#[tokio::test]
async fn a_generation_is_never_below_what_the_agent_follows() {
    let rig = Rig::new().await;
    let (reply, node) = rig.join("web-1").await;
    let mut link = rig.link(rig.cluster, node.id).await;
    let ahead = WatchRequest { known_generation: 40 };
    let mut stream = link.watch(ahead).await.unwrap().into_inner();
    let first = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!(first, NodeConfig { generation: 41, ..reply.config.unwrap() });
    // Another process on the same database decides the same.
    let other = Agents::new(rig.world.store.clone(), Arc::clone(&rig.part) as _, Arc::new(installation()));
    let own = crate::node_context::NodeContext::load(&rig.world.store, node.id).await.unwrap().unwrap();
    let pki = rig.world.store.pki().get(rig.cluster).await.unwrap().unwrap();
    assert_eq!(other.desired(&own, &pki, 0).await.unwrap(), first);
    // What one read before another wrote is decided on the newer row.
    rig.world.store.nodes().order_registration(node.id).await.unwrap();
    let stale = crate::node_context::NodeContext::load(&rig.world.store, node.id).await.unwrap().unwrap();
    let second = soon(stream.message()).await.unwrap().unwrap();
    assert_eq!((second.generation, second.registration), (42, 1));
    assert_eq!(other.desired(&stale, &pki, 0).await.unwrap(), second);
    // An older view of the rows with other content does not take the place of the newer one.
    let older =
        crate::node_context::NodeContext { node: Node { config: ConfigVersion::default(), ..own.node.clone() }, ..own };
    assert_eq!(other.desired(&older, &pki, 0).await.unwrap(), second);
}

#[tokio::test]
async fn a_node_deleted_from_kubernetes_is_told_to_register() {
    let rig = Rig::new().await;
    let (_, node) = rig.join("web-1").await;
    let reconcile = || rig.world.ctx.reconcile(migrations::WorkKind::Node, node.id.uuid());
    let mut link = rig.link(rig.cluster, node.id).await;
    let mut stream = link.watch(WatchRequest::default()).await.unwrap().into_inner();
    assert_eq!(soon(stream.message()).await.unwrap().unwrap().registration, 0);
    rig.world.store.nodes().set_link(node.id, uuid::Uuid::nil()).await.unwrap();
    let mut changes = rig.world.ctx.tenants.changes();
    reconcile().await.unwrap();
    soon(changes.recv()).await.unwrap();
    let (message, kubelet_version) = (String::new(), "v1.36.3".to_owned());
    let fact = crate::host::NodeStatus { name: "web-1".into(), ready: Some(true), message, kubelet_version };
    rig.world.tenant.set_nodes(vec![fact]);
    soon(changes.recv()).await.unwrap();
    assert_eq!(reconcile().await.unwrap(), Outcome::Done);
    rig.world.tenant.set_nodes(Vec::new());
    soon(changes.recv()).await.unwrap();
    reconcile().await.unwrap();
    assert_eq!(soon(stream.message()).await.unwrap().unwrap().registration, 1);
    reconcile().await.unwrap();
    let row = rig.world.store.nodes().load(node.id).await.unwrap();
    assert_eq!((row.state, row.registration.number), (NodeState::NotReady, 1), "once a minute");
}

#[tokio::test]
async fn reports_are_kept_and_taken_back() {
    let rig = Rig::new().await;
    let (_, node) = rig.join("web-1").await;
    let mut link = rig.link(rig.cluster, node.id).await;
    let row = || rig.world.store.nodes().load(node.id);
    let check = Check {
        id: "swap".into(),
        status: CheckStatus::Fail.into(),
        observed: "swap is on".into(),
        remediation: "Turn it off.".into(),
    };
    let failed = NodeReport {
        phase: NodePhase::Failed.into(),
        message: "preflight".into(),
        checks: vec![check],
        ..NodeReport::default()
    };
    link.report(failed).await.unwrap();
    rig.world.ctx.reconcile(migrations::WorkKind::Node, node.id.uuid()).await.unwrap();
    let reported = row().await.unwrap();
    let problem = reported.problem.unwrap();
    assert!(problem.detail.ends_with("the machine suggests: Turn it off."), "{}", problem.detail);
    assert!(problem.remediation.starts_with("Run `pilothouse-node status`"), "{}", problem.remediation);
    assert_eq!(reported.state, NodeState::Joining);
    link.report(NodeReport { phase: NodePhase::Ready.into(), ..NodeReport::default() }).await.unwrap();
    assert_eq!(row().await.unwrap().problem, None);
    let before = row().await.unwrap();
    link.report(NodeReport { phase: NodePhase::Ready.into(), ..NodeReport::default() }).await.unwrap();
    assert_eq!(row().await.unwrap().updated_at, before.updated_at, "a heartbeat is no news");
}

#[tokio::test]
async fn a_node_becomes_ready_when_kubernetes_says_so() {
    let rig = Rig::new().await;
    let (_, node) = rig.join("web-1").await;
    let reconcile = || rig.world.ctx.reconcile(migrations::WorkKind::Node, node.id.uuid());
    let mut changes = rig.world.ctx.tenants.changes();
    assert!(matches!(reconcile().await.unwrap(), Outcome::Waiting { .. }));
    soon(changes.recv()).await.unwrap();
    let fact = crate::host::NodeStatus {
        name: "web-1".into(),
        ready: Some(true),
        message: String::new(),
        kubelet_version: "v1.36.3".into(),
    };
    rig.world.tenant.set_nodes(vec![fact]);
    soon(changes.recv()).await.unwrap();
    assert_eq!(reconcile().await.unwrap(), Outcome::Done);
    let row = rig.world.store.nodes().load(node.id).await.unwrap();
    assert_eq!((row.state, row.facts.kubelet_version.as_str()), (NodeState::Ready, "v1.36.3"));
    let pool = rig.world.store.pools().load(row.pool).await.unwrap();
    assert_eq!(pool.kind, PoolKind::Byo);
}

#[tokio::test]
async fn a_node_has_the_version_of_its_pool() {
    let rig = Rig::new().await;
    let (cluster, organization) = (rig.cluster, rig.world.organization.id);
    let older = KubernetesVersion::parse("1.35.4").unwrap();
    let (name, kind, version) = ("old".parse().unwrap(), PoolKind::Byo, Some(older));
    let new = NewPool { cluster, organization, name, kind, count: 0, version, actor: Actor::System };
    let pool = rig.world.store.pools().insert(new).await.unwrap();
    let request = request(&rig.token_of(Some(pool.id)).await, "machine-1", "old-1");
    let config = rig.enrollment().await.enroll(request).await.unwrap().into_inner().config.unwrap();
    assert_eq!((&*config.kubernetes_version, &*config.parts[0].version), ("1.35.4", "1.35.4"));
    assert_eq!(config.signed.unwrap().manifest, "1.35.4", "the list that signs these very parts");
    let (beside, _) = rig.join_as("machine-2", "web-1").await;
    assert_eq!(beside.config.unwrap().kubernetes_version, KubernetesVersion::default().to_string());
}

#[tokio::test]
async fn certificates_are_renewed_for_the_same_name() {
    let rig = Rig::new().await;
    let (_, node) = rig.join("web-1").await;
    let mut link = rig.link(rig.cluster, node.id).await;
    let renew = RenewRequest { link_csr: csr(), kubelet_csr: csr(), proxy_csr: csr(), serving_csr: csr() };
    let renewed = link.renew(renew.clone()).await.unwrap().into_inner();
    assert!(names(&renewed.kubelet_cert).0.contains("system:node:web-1"));
    let days =
        [&renewed.link_cert, &renewed.kubelet_cert, &renewed.proxy_cert, &renewed.serving_cert].map(|pem| days(pem));
    assert_eq!(days, [30, 1, 1, 30], "what the API server would take without asking is short");
    rig.world.store.nodes().mark_removed(node.id).await.unwrap();
    assert!(removed(&link.renew(renew).await.unwrap_err()).is_some());
}

#[tokio::test]
async fn nobody_waits_for_parts_that_nobody_reads() {
    let rig = Rig::new().await;
    let (_, node) = rig.join("web-1").await;
    let mut unread = Vec::new();
    for _ in 0..3 {
        // Its window takes no part in.
        let deaf = Endpoint::from_static("http://link.test").initial_stream_window_size(1024);
        let channel = rig.channel_of(deaf, Some(Caller { cluster: rig.cluster, node: node.id })).await;
        for _ in 0..200 {
            let mut link = NodeLinkClient::new(channel.clone());
            let request = FetchRequest { sha256: SHA.into(), ..FetchRequest::default() };
            unread.push(tokio::spawn(async move { link.fetch(request).await.map(Response::into_inner) }));
        }
    }
    // Four have begun and are not read; the others wait for them. (No more than sixteen calls of each connection are heard at all.)
    let begun = async {
        while unread.iter().filter(|fetch| fetch.is_finished()).count() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(begun).await;
    soon(tokio::task::spawn_blocking(|| ())).await.unwrap();
    let (begun, waiting): (Vec<_>, Vec<_>) = unread.into_iter().partition(tokio::task::JoinHandle::is_finished);
    let begun = futures::future::join_all(begun).await;
    assert!(begun.len() == 4 && begun.iter().flatten().all(Result::is_ok), "{begun:?}");
    let (_, other) = rig.join_as("machine-2", "web-2").await;
    let mut link = rig.link(rig.cluster, other.id).await;
    let mut parts =
        link.fetch(FetchRequest { sha256: SHA.into(), ..FetchRequest::default() }).await.unwrap().into_inner();
    soon(parts.message()).await.unwrap().unwrap();
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_node_has_one_watch_and_a_report_a_second() {
    let rig = Rig::new().await;
    let (_, node) = rig.join("web-1").await;
    let mut link = rig.link(rig.cluster, node.id).await;
    let mut first = link.watch(WatchRequest::default()).await.unwrap().into_inner();
    soon(first.message()).await.unwrap().unwrap();
    let mut second = link.watch(WatchRequest::default()).await.unwrap().into_inner();
    soon(second.message()).await.unwrap().unwrap();
    assert_eq!(soon(first.message()).await.unwrap_err().code(), Code::Aborted);
    let mut refused = 0;
    for _ in 0..40 {
        let answer = link.report(NodeReport { phase: NodePhase::Joining.into(), ..NodeReport::default() }).await;
        refused += usize::from(answer.is_err_and(|status| status.code() == Code::ResourceExhausted));
    }
    assert!(refused > 0, "forty at once");
}

/// Its certificate is good for days after there is nothing to read of it any more.
#[tokio::test]
async fn calls_of_a_node_without_a_row_are_counted_too() {
    let (today, yesterday) = (Rig::new().await, Rig::new().await);
    let (_, node) = today.join("web-1").await;
    let mut link = yesterday.link(yesterday.cluster, node.id).await;
    let mut refused = 0;
    for _ in 0..40 {
        let status = link.report(NodeReport::default()).await.unwrap_err();
        refused += usize::from(status.code() == Code::ResourceExhausted);
    }
    assert!(refused > 0, "forty at once");
}

#[tokio::test]
async fn certificates_are_renewed_four_times_and_then_refused() {
    let rig = Rig::new().await;
    let (_, node) = rig.join("web-1").await;
    let mut link = rig.link(rig.cluster, node.id).await;
    let renew = RenewRequest { link_csr: csr(), kubelet_csr: csr(), proxy_csr: csr(), serving_csr: csr() };
    for _ in 0..4 {
        link.renew(renew.clone()).await.unwrap();
    }
    let refused = link.renew(renew.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("4 at once, then one every 900 s"), "{refused}");
    let (_, other) = rig.join_as("machine-2", "web-2").await;
    rig.link(rig.cluster, other.id).await.renew(renew).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_repeats_its_enrollment_is_told_to_wait() {
    let rig = Rig::new().await;
    let token = rig.token().await;
    let mut client = rig.enrollment().await;
    for _ in 0..6 {
        client.enroll(request(&token, "m1", "a")).await.unwrap();
    }
    let refused = client.enroll(request(&token, "m1", "a")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "agents try again after it");
    assert!(refused.message().contains("too many requests with this join token"), "{refused}");
    client.enroll(request(&rig.token().await, "m2", "b")).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_does_not_ask_is_let_go_and_one_that_did_is_not() {
    let (short, requested) = (Duration::from_millis(50), CancellationToken::new());
    soon(until_silent(std::future::pending(), requested.clone(), short)).await;
    requested.cancel();
    let served = tokio::time::timeout(3 * short, until_silent(std::future::pending(), requested, short)).await;
    assert!(served.is_err(), "it asked");
}
