//! Who may open a link or an egress connection.

use gateway::{Kind, Refused};
use node_protocol::alpn;
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
    let other_ca = Authority::new("link a");
    let cases = [
        ("none", LABEL_A, None),
        ("another CA of the same name", LABEL_A, Some(other_ca.node(A, "nod_1"))),
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
async fn a_node_that_is_none_is_answered_on_grpc_and_closed_elsewhere() {
    let mut world = World::new().await;
    let leaf = world.link_a.node(A, "nod_gone");
    let _client = link(&world, LABEL_A, Some(leaf.clone())).await.unwrap();
    let (_served, peer) = next(&mut world.link).await;
    assert_eq!(peer.node, Some((A.to_owned(), "nod_gone".to_owned())));
    for protocol in [alpn::TUNNEL, alpn::API] {
        let mut client = world.identity(protocol, leaf.clone()).await.unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }
    until(|| world.gateway.counters().refused(Refused::Removed) == 2).await;
    assert!(world.gateway.links(A).is_empty());
}

#[tokio::test]
async fn a_deleted_clusters_node_is_heard_and_reaches_nothing() {
    let mut world = World::new().await;
    let route = world.book.clusters.lock().unwrap().remove(LABEL_A).unwrap();
    world.book.deleted.lock().unwrap().insert(LABEL_A.into(), gateway::ClusterRoute { api: None, ..route });
    world.book.nodes.lock().unwrap().clear();
    world.gateway.drop_cluster(A);
    let leaf = world.link_a.node(A, "nod_1");
    let _client = link(&world, LABEL_A, Some(leaf.clone())).await.unwrap();
    let (_served, peer) = next(&mut world.link).await;
    assert_eq!(peer.node, Some((A.to_owned(), "nod_1".to_owned())));
    let mut splice = world.identity(alpn::API, leaf).await.unwrap();
    assert!(!matches!(splice.read(&mut [0; 1]).await, Ok(1..)), "there is no API server behind it");
    for kind in ["api", "egress"] {
        let name = format!("{LABEL_A}.{kind}.{DOMAIN}");
        let error = refusal(world.tls(&name, &[], Some(world.link_a.egress(A))).await).await;
        assert!(error.contains("UnrecognisedName"), "{kind}: {error}");
    }
}

#[tokio::test]
async fn a_cut_node_loses_its_api_connections() {
    let world = World::new().await;
    let outer = world.identity(alpn::API, world.link_a.node(A, "nod_1")).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from(format!("{LABEL_A}.api.{DOMAIN}")).unwrap();
    let config = crate::world::client_config(world.api_ca.roots(), &[], None);
    let mut inner = tokio_rustls::TlsConnector::from(config).connect(name, outer).await.unwrap();
    echo(&mut inner, b"GET /api").await;
    assert_eq!(world.gateway.known(), [(A.to_owned(), vec!["nod_1".to_owned()])]);
    world.book.nodes.lock().unwrap().clear();
    world.gateway.drop_node(A, "nod_1");
    assert!(!matches!(inner.read(&mut [0; 1]).await, Ok(1..)), "cut");
    until(|| world.gateway.counters().live(Kind::Api) == 0).await;
    let mut again = world.identity(alpn::API, world.link_a.node(A, "nod_1")).await.unwrap();
    assert!(!matches!(again.read(&mut [0; 1]).await, Ok(1..)), "and stays so");
}

#[tokio::test]
async fn strangers_do_not_take_a_nodes_api_connections() {
    let world = World::with(gateway::Limits { connections_per_cluster: 1, ..gateway::Limits::default() }).await;
    let name = format!("{LABEL_A}.api.{DOMAIN}");
    let _person = world.tls_trusting(world.api_ca.roots(), &name, (&[], None)).await.unwrap();
    assert!(world.tls_trusting(world.api_ca.roots(), &name, (&[], None)).await.is_err(), "people have one place");
    let outer = world.identity(alpn::API, world.link_a.node(A, "nod_1")).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from(name).unwrap();
    let config = crate::world::client_config(world.api_ca.roots(), &[], None);
    let mut inner = tokio_rustls::TlsConnector::from(config).connect(name, outer).await.unwrap();
    echo(&mut inner, b"GET /api").await;
}

#[tokio::test]
async fn the_api_splice_is_raw_bytes_to_the_api_server() {
    let world = World::new().await;
    let outer = world.identity(alpn::API, world.link_a.node(A, "nod_1")).await.unwrap();
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
    let error = world.identity(b"pilothouse-tunnel/2", world.link_a.node(A, "nod_1")).await.unwrap_err();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}
