//! Links and the gateway itself, coming and going.

use std::{io::ErrorKind, time::Duration};

use gateway::{GatewayError, Kind, Limits, Refused};
use node_protocol::alpn;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, ECHO},
    tunnel::connect,
    world::{A, DOMAIN, LABEL_A, World, client_config, echo, next, until},
};

#[tokio::test]
async fn a_second_link_replaces_the_first_which_drains() {
    let world = World::new().await;
    let first = Agent::join(&world).await;
    let (_, mut old) = connect(&world, &format!("web-1:{ECHO}")).await;
    echo(&mut old, b"on the first").await;
    let second = Agent::join(&world).await;
    assert_eq!(world.gateway.links(A).len(), 1);
    let (_, mut new) = connect(&world, &format!("web-1:{ECHO}")).await;
    echo(&mut new, b"on the second").await;
    assert_eq!(second.seen.asked.lock().unwrap().len(), 1);
    echo(&mut old, b"still on the first").await;
    drop(old);
    until(|| first.task.is_finished()).await;
    until(|| world.gateway.counters().live(Kind::Tunnel) == 1).await;
    let events = world.book.events.lock().unwrap().clone();
    assert!(events.iter().all(|(_, _, connected)| *connected), "never told that the node was away: {events:?}");
}

#[tokio::test]
async fn a_frozen_agent_is_noticed_while_idle() {
    let limits = Limits {
        ping_every: Duration::from_millis(100),
        ping_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let world = World::with(limits).await;
    let client = world.identity(alpn::TUNNEL, world.link_a.node(A, "nod_1")).await.unwrap();
    let mut connection = h2::server::handshake(client).await.unwrap();
    // Alive for a while, idle, with nothing but pings.
    let alive = timeout(Duration::from_millis(600), connection.accept()).await;
    assert!(alive.is_err(), "still there after six pings");
    assert_eq!(world.gateway.links(A).len(), 1);
    // Frozen: the connection stays open and nobody polls it.
    world.written("nod_1", false).await;
    assert!(world.gateway.links(A).is_empty());
    drop(connection);
}

#[tokio::test]
async fn an_agent_that_never_speaks_is_never_linked() {
    let limits = Limits { ping_timeout: Duration::from_millis(200), ..Limits::default() };
    let world = World::with(limits).await;
    let mut silent = world.identity(alpn::TUNNEL, world.link_a.node(A, "nod_1")).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(10), silent.read_to_end(&mut rest)).await.expect("closed in time");
    assert!(world.book.events.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_dropped_node_loses_everything_it_has_open() {
    let mut world = World::new().await;
    let agent = Agent::join(&world).await;
    let (_, mut stream) = connect(&world, &format!("web-1:{ECHO}")).await;
    let mut grpc =
        world.tls(&format!("{LABEL_A}.link.{DOMAIN}"), &[b"h2"], Some(world.link_a.node(A, "nod_1"))).await.unwrap();
    let (mut served, _) = next(&mut world.link).await;
    world.book.nodes.lock().unwrap().clear();
    world.gateway.drop_node(A, "nod_1");
    let error = served.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    drop(served);
    assert!(grpc.read(&mut [0; 1]).await.is_err());
    assert!(stream.read(&mut [0; 1]).await.is_err());
    until(|| agent.task.is_finished()).await;
    world.written("nod_1", false).await;
}

#[tokio::test]
async fn a_dropped_cluster_loses_passthrough_and_egress_too() {
    let world = World::new().await;
    let agent = Agent::join(&world).await;
    let name = format!("{LABEL_A}.api.{DOMAIN}");
    let mut person = world.tls_trusting(world.api_ca.roots(), &name, (&[], None)).await.unwrap();
    echo(&mut person, b"kubectl").await;
    let (_, mut stream) = connect(&world, &format!("web-1:{ECHO}")).await;
    world.book.clusters.lock().unwrap().remove(LABEL_A);
    world.gateway.drop_cluster(A);
    assert!(person.read(&mut [0; 1]).await.is_err());
    assert!(stream.read(&mut [0; 1]).await.is_err());
    until(|| agent.task.is_finished()).await;
    let error = world.tls_trusting(world.api_ca.roots(), &name, (&[], None)).await.unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
}

#[tokio::test]
async fn dropped_clients_lose_what_they_have_open_and_may_come_again() {
    let world = World::new().await;
    let agent = Agent::join(&world).await;
    let name = format!("{LABEL_A}.api.{DOMAIN}");
    let mut person = world.tls_trusting(world.api_ca.roots(), &name, (&[], None)).await.unwrap();
    echo(&mut person, b"a watch").await;
    let (_, mut stream) = connect(&world, &format!("web-1:{ECHO}")).await;
    world.gateway.drop_clients(A);
    assert!(person.read(&mut [0; 1]).await.is_err());
    echo(&mut stream, b"the way to nodes is nobody's credential").await;
    assert!(!agent.task.is_finished() && world.gateway.links(A).len() == 1);
    let mut person = world.tls_trusting(world.api_ca.roots(), &name, (&[], None)).await.unwrap();
    echo(&mut person, b"again").await;
}

#[tokio::test]
async fn a_clusters_own_port_leads_there_whatever_name_is_asked_for() {
    let world = World::new().await;
    let (listener, cancel) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), CancellationToken::new());
    let address = listener.local_addr().unwrap();
    world.gateway.serve_cluster(listener, LABEL_A.to_owned(), cancel.clone());
    let mut silent = std::sync::Arc::unwrap_or_clone(client_config(world.api_ca.roots(), &[], None));
    silent.enable_sni = false;
    let silent = tokio_rustls::TlsConnector::from(std::sync::Arc::new(silent));
    let name = || format!("{LABEL_A}.api.{DOMAIN}").try_into().unwrap();
    let shared = TcpStream::connect(world.address).await.unwrap();
    assert!(silent.connect(name(), shared).await.is_err(), "without a name the shared port leads to the portal");
    let mut client = silent.connect(name(), TcpStream::connect(address).await.unwrap()).await.unwrap();
    echo(&mut client, b"kubectl").await;
    cancel.cancel();
    until(|| std::net::TcpStream::connect(address).is_err()).await;
}

#[tokio::test]
async fn an_enrollment_that_never_ends_is_ended() {
    let mut world = World::with(Limits { enrollment_time: Duration::from_millis(50), ..Limits::default() }).await;
    let mut idle = world.tls(&format!("link.{DOMAIN}"), &[b"h2"], None).await.unwrap();
    let (mut served, peer) = next(&mut world.link).await;
    assert_eq!(peer.node, None);
    let cut = timeout(Duration::from_secs(5), served.read(&mut [0; 1])).await.expect("cut in time").unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::ConnectionAborted);
    drop(served);
    assert!(!matches!(idle.read(&mut [0; 1]).await, Ok(1..)));
    until(|| world.gateway.counters().live(Kind::Enrollment) == 0).await;
}

#[tokio::test]
async fn one_node_cannot_take_all_connections() {
    let mut world = World::with(Limits { links_per_node: 2, ..Limits::default() }).await;
    world.book.add_node(A, "nod_2", "web-2", "10.244.2.0/24");
    let _first = world.identity(b"h2", world.link_a.node(A, "nod_1")).await.unwrap();
    let (first, _) = next(&mut world.link).await;
    let _second = world.identity(b"h2", world.link_a.node(A, "nod_1")).await.unwrap();
    let (_second_served, _) = next(&mut world.link).await;
    let mut third = world.identity(b"h2", world.link_a.node(A, "nod_1")).await.unwrap();
    assert!(!matches!(third.read(&mut [0; 1]).await, Ok(1..)), "closed");
    assert_eq!(world.gateway.counters().refused(Refused::Full), 1);
    let _other = world.identity(b"h2", world.link_a.node(A, "nod_2")).await.unwrap();
    let (_other_served, _) = next(&mut world.link).await;
    drop(first);
    let _again = world.identity(b"h2", world.link_a.node(A, "nod_1")).await.unwrap();
    let (_again_served, _) = next(&mut world.link).await;
}

#[tokio::test]
async fn stopping_lets_streams_finish_and_then_cuts() {
    let mut world = World::with(Limits { drain: Duration::from_millis(600), ..Limits::default() }).await;
    let agent = Agent::join(&world).await;
    let (_, mut finishing) = connect(&world, &format!("web-1:{ECHO}")).await;
    let (_, mut lasting) = connect(&world, &format!("web-1:{ECHO}")).await;
    let _browser = world.tls("127.0.0.1", &[b"h2"], None).await.unwrap();
    let (mut served, _) = next(&mut world.portal).await;
    world.cancel.cancel();
    until_refused(&world).await;
    echo(&mut finishing, b"one more").await;
    finishing.shutdown().await.unwrap();
    assert_eq!(finishing.read(&mut [0; 1]).await.unwrap(), 0, "a clean end");
    let error = timeout(Duration::from_secs(5), lasting.read(&mut [0; 1])).await.expect("cut in time").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(served.read(&mut [0; 1]).await.unwrap_err().kind(), ErrorKind::ConnectionAborted);
    drop(served);
    timeout(Duration::from_secs(5), &mut world.running).await.expect("stopped in time").unwrap();
    until(|| agent.task.is_finished()).await;
    world.written("nod_1", false).await;
    let again = world.gateway.run(CancellationToken::new()).await;
    assert!(matches!(again, Err(GatewayError::AlreadyRunning)));
}

async fn until_refused(world: &World) {
    while TcpStream::connect(world.address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_idle_gateway_stops_at_once() {
    let limits = Limits { drain: Duration::from_secs(3600), ..Limits::default() };
    let mut world = World::with(limits).await;
    let agent = Agent::join(&world).await;
    world.cancel.cancel();
    timeout(Duration::from_secs(20), &mut world.running).await.expect("an idle link is not waited for").unwrap();
    until(|| agent.task.is_finished()).await;
}

#[tokio::test]
async fn the_certificate_can_be_replaced() {
    let world = World::new().await;
    let renewed = crate::pki::Authority::new("platform, renewed");
    let leaf = renewed.server(&["127.0.0.1"]);
    world.gateway.set_certificate(leaf.chain.clone(), leaf.key.clone_key()).unwrap();
    assert!(world.tls("127.0.0.1", &[], None).await.is_err());
    world.tls_trusting(renewed.roots(), "127.0.0.1", (&[], None)).await.unwrap();
    let other = renewed.server(&["127.0.0.1"]);
    assert!(world.gateway.set_certificate(leaf.chain, other.key).is_err(), "another certificate's key");
}
