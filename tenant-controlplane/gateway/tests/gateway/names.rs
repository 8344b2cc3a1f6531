//! Where names lead, and that passthrough is untouched.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use gateway::{Kind, Limits, Refused};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::{A, DOMAIN, LABEL_A, LABEL_B, World, echo, next, until};

fn api(label: &str) -> String {
    format!("{label}.api.{DOMAIN}")
}

#[tokio::test]
async fn passthrough_shows_the_api_servers_own_certificate() {
    let world = World::new().await;
    let mut stream = world.tls_trusting(world.api_ca.roots(), &api(LABEL_A), (&[], None)).await.unwrap();
    echo(&mut stream, b"kubectl get ns").await;
    echo(&mut stream, &vec![7; 300_000]).await;
    // A half-close arrives, and what comes back after it too.
    stream.write_all(b"last words").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"last words");
    assert_eq!(world.gateway.counters().opened(Kind::Passthrough), 1);
    until(|| world.gateway.counters().live(Kind::Passthrough) == 0).await;
}

#[tokio::test]
async fn nodes_have_no_name_beside_their_link() {
    let world = World::new().await;
    let name = format!("{LABEL_A}.node.{DOMAIN}");
    let error = world.tls_trusting(world.api_ca.roots(), &name, (&[], None)).await.unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    assert_eq!(world.gateway.counters().opened(Kind::Passthrough), 0);
}

#[tokio::test]
async fn unknown_clusters_are_told_at_once_and_unready_ones_in_time() {
    let world = World::with(Limits { dial_time: Duration::from_millis(50), ..Limits::default() }).await;
    let unknown = api("01k9zq0000000000000000000z");
    for name in [unknown.as_str(), &api("short"), &format!("short.link.{DOMAIN}")] {
        let error = world.tls(name, &[], None).await.unwrap_err();
        assert!(error.to_string().contains("UnrecognisedName"), "{name}: {error}");
    }
    let error = world.tls(&api(LABEL_B), &[], None).await.unwrap_err();
    assert!(error.to_string().contains("InternalError"), "{error}");
    assert_eq!(world.gateway.counters().refused(Refused::UnknownName), 3);
    assert_eq!(world.gateway.counters().refused(Refused::NotReady), 1);
}

#[tokio::test]
async fn an_api_server_that_is_gone_is_an_alert_not_a_hang() {
    let world = World::with(Limits { dial_time: Duration::from_millis(50), ..Limits::default() }).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.book.add_cluster(LABEL_A, A, Some(nobody), &world.link_a);
    let error = world.tls(&api(LABEL_A), &[], None).await.unwrap_err();
    assert!(error.to_string().contains("InternalError"), "{error}");
}

#[tokio::test]
async fn by_address_and_by_other_names_comes_the_portal() {
    let mut world = World::new().await;
    let mut by_address = world.tls("127.0.0.1", &[b"http/1.1"], None).await.unwrap();
    let (mut served, peer) = next(&mut world.portal).await;
    assert_eq!(peer.node, None);
    assert_eq!(served.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    by_address.write_all(b"GET /").await.unwrap();
    let mut got = [0; 5];
    served.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"GET /");
    assert_eq!(world.gateway.counters().live(Kind::Portal), 1);
    let _by_name = world.tls(&format!("portal.{DOMAIN}"), &[b"h2", b"http/1.1"], None).await.unwrap();
    let (served, _) = next(&mut world.portal).await;
    assert_eq!(served.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn enrollment_needs_no_certificate_and_gives_no_identity() {
    let mut world = World::new().await;
    let _client = world.tls(&format!("link.{DOMAIN}"), &[b"h2"], None).await.unwrap();
    let (served, peer) = next(&mut world.link).await;
    assert_eq!(peer.node, None);
    assert_eq!(served.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn the_last_known_route_outlives_the_directory() {
    let world = World::new().await;
    let roots = || world.api_ca.roots();
    drop(world.tls_trusting(roots(), &api(LABEL_A), (&[], None)).await.unwrap());
    world.book.down.store(true, SeqCst);
    let mut stream = world.tls_trusting(roots(), &api(LABEL_A), (&[], None)).await.unwrap();
    echo(&mut stream, b"still here").await;
    let error = world.tls(&api(LABEL_B), &[], None).await.unwrap_err();
    assert!(error.to_string().contains("InternalError"), "never seen, so not known: {error}");
    world.book.down.store(false, SeqCst);
    world.book.clusters.lock().unwrap().remove(LABEL_A);
    assert!(world.tls_trusting(roots(), &api(LABEL_A), (&[], None)).await.is_err());
}

#[tokio::test]
async fn a_cluster_has_a_cap_of_connections() {
    let world = World::with(Limits { connections_per_cluster: 2, ..Limits::default() }).await;
    let open = || world.tls_trusting(world.api_ca.roots(), &*Box::leak(api(LABEL_A).into_boxed_str()), (&[], None));
    let first = open().await.unwrap();
    let _second = open().await.unwrap();
    assert!(open().await.unwrap_err().to_string().contains("InternalError"));
    assert_eq!(world.gateway.counters().refused(Refused::Full), 1);
    drop(first);
    until(|| world.gateway.counters().live(Kind::Passthrough) == 1).await;
    open().await.unwrap();
}

#[tokio::test]
async fn an_address_has_its_share_of_a_clusters_connections() {
    let world = World::with(Limits { connections_per_address: 1, ..Limits::default() }).await;
    let name = format!("{LABEL_A}.api.{DOMAIN}");
    let open = || world.tls_trusting(world.api_ca.roots(), &name, (&[], None));
    let _first = open().await.unwrap();
    assert!(open().await.unwrap_err().to_string().contains("InternalError"), "the first was used just now");
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let elsewhere = socket.connect(world.address).await.unwrap();
    let config = crate::world::client_config(world.api_ca.roots(), &[], None);
    let name = rustls_pki_types::ServerName::try_from(name.clone()).unwrap();
    let mut other = tokio_rustls::TlsConnector::from(config).connect(name, elsewhere).await.unwrap();
    crate::world::echo(&mut other, b"another address has its own").await;
}

#[tokio::test]
async fn a_name_that_nobody_has_is_looked_up_once() {
    let world = World::new().await;
    let nobody = format!("01k9zq000000000000000000zz.api.{DOMAIN}");
    let before = world.book.asked.load(SeqCst);
    for _ in 0..5 {
        assert!(world.tls(&nobody, &[], None).await.is_err());
    }
    assert_eq!(world.book.asked.load(SeqCst) - before, 1);
}
