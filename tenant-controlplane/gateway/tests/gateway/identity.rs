//! Who may open a link or an egress connection.

use gateway::{ALPN_API, ALPN_TUNNEL, Kind, Refused};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    pki::{Authority, Leaf},
    world::{A, B, Client, DOMAIN, LABEL_A, LABEL_B, World, echo, next, until},
};

/// In TLS 1.3 a client learns of a refused certificate with its first read.
async fn refusal(opened: std::io::Result<Client>) -> String {
    match opened {
        Ok(mut stream) => stream.read(&mut [0; 1]).await.expect_err("a refused certificate").to_string(),
        Err(error) => error.to_string(),
    }
}

async fn link(world: &World, label: &str, leaf: Option<Leaf>) -> std::io::Result<Client> {
    world.tls(&format!("{label}.link.{DOMAIN}"), &[b"h2"], leaf).await
}

#[tokio::test]
async fn a_node_is_who_its_certificate_says() {
    let mut world = World::new().await;
    let mut client = link(&world, LABEL_A, Some(world.link_a.node(A, "nod_1"))).await.unwrap();
    let (mut served, peer) = next(&mut world.link).await;
    assert_eq!(peer.node, Some((A.to_owned(), "nod_1".to_owned())));
    client.write_all(b"hi").await.unwrap();
    let mut got = [0; 2];
    served.read_exact(&mut got).await.unwrap();
}

#[tokio::test]
async fn wrong_certificates_are_refused_in_the_handshake() {
    let world = World::new().await;
    let stranger = Authority::new("link a");
    let cases = [
        ("none", LABEL_A, None),
        ("another CA of the same name", LABEL_A, Some(stranger.node(A, "nod_1"))),
        ("the other cluster's node", LABEL_A, Some(world.link_b.node(B, "nod_9"))),
        ("the other cluster's CA naming this cluster", LABEL_A, Some(world.link_b.node(A, "nod_1"))),
        ("this cluster's node on the other's name", LABEL_B, Some(world.link_a.node(A, "nod_1"))),
        ("right CA, other cluster inside", LABEL_A, Some(world.link_a.node(B, "nod_1"))),
        ("the egress certificate", LABEL_A, Some(world.link_a.egress(A))),
        ("the gateway's own CA", LABEL_A, Some(world.platform.node(A, "nod_1"))),
    ];
    let count = cases.len() as u64;
    for (what, label, leaf) in cases {
        let error = refusal(link(&world, label, leaf).await).await;
        assert!(error.contains("received fatal alert"), "{what}: {error}");
    }
    until(|| world.gateway.counters().refused(Refused::Handshake) == count).await;
    assert_eq!(world.gateway.counters().opened(Kind::Link), 0);
}

#[tokio::test]
async fn egress_is_for_the_clusters_own_api_server() {
    let world = World::new().await;
    let name = format!("{LABEL_A}.egress.{DOMAIN}");
    for (what, leaf) in [
        ("none", None),
        ("a node", Some(world.link_a.node(A, "nod_1"))),
        ("the other cluster's", Some(world.link_b.egress(B))),
        ("the other cluster's CA", Some(world.link_b.egress(A))),
        ("right CA, other cluster inside", Some(world.link_a.egress(B))),
    ] {
        let error = refusal(world.tls(&name, &[], leaf).await).await;
        assert!(error.contains("received fatal alert"), "{what}: {error}");
    }
    assert_eq!(world.gateway.counters().opened(Kind::Egress), 0);
}

#[tokio::test]
async fn a_rotated_link_ca_is_trusted_at_once_and_the_old_one_no_more() {
    let world = World::new().await;
    drop(link(&world, LABEL_A, Some(world.link_a.node(A, "nod_1"))).await.unwrap());
    let renewed = Authority::new("link a, renewed");
    let api = world.book.clusters.lock().unwrap()[LABEL_A].api;
    world.book.add_cluster(LABEL_A, A, api, &renewed);
    let opened = world.gateway.counters().opened(Kind::Link);
    let _client = link(&world, LABEL_A, Some(renewed.node(A, "nod_1"))).await.unwrap();
    until(|| world.gateway.counters().opened(Kind::Link) > opened).await;
    refusal(link(&world, LABEL_A, Some(world.link_a.node(A, "nod_1"))).await).await;
}

#[tokio::test]
async fn a_removed_node_is_told_so_on_grpc_and_closed_elsewhere() {
    let world = World::new().await;
    let leaf = world.link_a.node(A, "nod_gone");
    let client = link(&world, LABEL_A, Some(leaf.clone())).await.unwrap();
    let (sender, connection) = h2::client::handshake(client).await.unwrap();
    let driver = tokio::spawn(connection);
    let uri = "https://x/pilothouse.agent.v1.NodeLink/Watch";
    let request = http::Request::post(uri).body(()).unwrap();
    let (reply, _) = sender.ready().await.unwrap().send_request(request, true).unwrap();
    let reply = reply.await.unwrap();
    assert_eq!(reply.headers()["grpc-status"], "7");
    assert_eq!(reply.headers()["grpc-message"], "node nod_gone was removed from its cluster");
    driver.abort();
    for alpn in [ALPN_TUNNEL, ALPN_API] {
        let mut client = world.joined(alpn, leaf.clone()).await.unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }
    until(|| world.gateway.counters().refused(Refused::Removed) == 3).await;
    assert!(world.gateway.links(A).is_empty());
}

#[tokio::test]
async fn the_api_splice_is_raw_bytes_to_the_api_server() {
    let world = World::new().await;
    let outer = world.joined(ALPN_API, world.link_a.node(A, "nod_1")).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from(format!("{LABEL_A}.api.{DOMAIN}")).unwrap();
    let config = crate::world::client_config(world.api_ca.roots(), &[], None);
    let mut inner = tokio_rustls::TlsConnector::from(config).connect(name, outer).await.unwrap();
    echo(&mut inner, b"GET /api").await;
    inner.shutdown().await.unwrap();
    let mut rest = Vec::new();
    inner.read_to_end(&mut rest).await.unwrap();
    until(|| world.gateway.counters().live(Kind::Api) == 0).await;
}

#[tokio::test]
async fn an_unknown_alpn_is_refused() {
    let world = World::new().await;
    let error = world.joined(b"pilothouse-tunnel/2", world.link_a.node(A, "nod_1")).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}
