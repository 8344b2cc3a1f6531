//! Too many at once, or an API server that is not there: whoever causes it pays, and nobody else waits.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use gateway::{Kind, Limits, Refused};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use crate::world::{A, B, DOMAIN, LABEL_A, LABEL_B, World, echo, next, until};

const SOON: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(600);

fn api(label: &str) -> String {
    format!("{label}.api.{DOMAIN}")
}

/// A connection from another of the machine's own addresses.
async fn from(source: Ipv4Addr, gateway: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(gateway).await
}

/// An API server that takes no connection: its queue is full. The sockets keep it so.
async fn deaf() -> (SocketAddr, Socket, Vec<TcpStream>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(1).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queued.push(connected.unwrap());
    }
    (address, socket, queued)
}

#[tokio::test]
async fn silent_visitors_from_one_address_leave_room_for_others() {
    let world = World::with(Limits { pending: 8, per_address: 4, hello_time: LONG, ..Limits::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(from(Ipv4Addr::new(127, 0, 0, 2), world.address).await.unwrap());
    }
    until(|| world.gateway.counters().refused(Refused::Crowd) == 12).await;
    timeout(SOON, world.tls("127.0.0.1", &[], None)).await.expect("a place").unwrap();
}

#[tokio::test]
async fn idle_portal_connections_take_nothing_from_clusters() {
    let mut world = World::with(Limits { portal_connections: 2, ..Limits::default() }).await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let inbound = world.tls("127.0.0.1", &[b"h2"], None).await.unwrap();
        idle.push((inbound, next(&mut world.portal).await));
    }
    idle[1].1.0.get_ref().0.claim().unwrap().touch();
    let _third = world.tls("127.0.0.1", &[b"h2"], None).await.unwrap();
    let _served = next(&mut world.portal).await;
    let (_idlest, (mut served, _)) = idle.remove(0);
    let cut = timeout(SOON, served.read(&mut [0; 1])).await.expect("cut").unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::ConnectionAborted);
    drop(served);
    assert_eq!(world.gateway.counters().refused(Refused::Crowd), 1);
    until(|| world.gateway.counters().live(Kind::Portal) == 2).await;
    let mut person = world.tls_trusting(world.api_ca.roots(), &api(LABEL_A), (&[], None)).await.unwrap();
    echo(&mut person, b"kubectl").await;
}

#[tokio::test]
async fn all_places_held_by_one_network_do_not_keep_another_out() {
    let limits = Limits { portal_connections: 6, per_address: 3, ..Limits::default() };
    let mut world = World::with(limits).await;
    let mut idle = Vec::new();
    for last in [2, 2, 2, 3, 3, 3] {
        let tcp = from(Ipv4Addr::new(127, 0, 0, last), world.address).await.unwrap();
        idle.push((world.tls_over(tcp, "127.0.0.1").await.unwrap(), next(&mut world.portal).await));
    }
    // It is somebody else's turn: from another network, where nobody holds anything.
    let tcp = from(Ipv4Addr::new(127, 0, 9, 1), world.address).await.unwrap();
    let _other = world.tls_over(tcp, "127.0.0.1").await.unwrap();
    let (served, peer) = next(&mut world.portal).await;
    assert_eq!(peer.address.ip(), Ipv4Addr::new(127, 0, 9, 1));
    until(|| world.gateway.counters().refused(Refused::Crowd) == 1).await;
    drop((served, idle));
}

#[tokio::test]
async fn who_has_shown_a_credential_is_not_pushed_out_by_strangers() {
    let mut world = World::with(Limits { portal_connections: 1, ..Limits::default() }).await;
    let mut caller = world.tls("127.0.0.1", &[b"h2"], None).await.unwrap();
    let (mut served, _) = next(&mut world.portal).await;
    served.get_ref().0.claim().unwrap().authenticate();
    let mut anonymous = Vec::new();
    for _ in 0..3 {
        anonymous.push((world.tls("127.0.0.1", &[b"h2"], None).await.unwrap(), next(&mut world.portal).await));
    }
    assert_eq!(world.gateway.counters().refused(Refused::Crowd), 2, "each client but the first ended one before");
    caller.write_all(b"here").await.unwrap();
    caller.flush().await.unwrap();
    let mut said = [0; 4];
    timeout(SOON, served.read_exact(&mut said)).await.expect("still open").unwrap();
    assert_eq!(&said, b"here");
}

#[tokio::test]
async fn enrollments_have_a_cap_of_their_own() {
    let mut world = World::with(Limits { enrollments: 1, ..Limits::default() }).await;
    let name = format!("link.{DOMAIN}");
    let _first = world.tls(&name, &[b"h2"], None).await.unwrap();
    let (mut served, _) = next(&mut world.link).await;
    let _second = world.tls(&name, &[b"h2"], None).await.unwrap();
    let _newest = next(&mut world.link).await;
    let cut = timeout(SOON, served.read(&mut [0; 1])).await.expect("cut").unwrap_err();
    assert_eq!(cut.kind(), io::ErrorKind::ConnectionAborted, "the newest has the place");
    assert_eq!(world.gateway.counters().refused(Refused::Crowd), 1);
}

#[tokio::test]
async fn an_api_server_that_takes_no_connection_keeps_nobody_elses_place() {
    let (address, _socket, _queued) = deaf().await;
    let world = World::with(Limits { pending: 4, dial_time: LONG, ..Limits::default() }).await;
    world.book.add_cluster(LABEL_B, B, Some(address), &world.link_b);
    let connections: Vec<_> = (0..8)
        .map(|_| {
            let (tcp, roots) = (TcpStream::connect(world.address), world.api_ca.roots());
            tokio::spawn(async move {
                let config = crate::world::client_config(roots, &[], None);
                let name = rustls_pki_types::ServerName::try_from(api(LABEL_B)).unwrap();
                tokio_rustls::TlsConnector::from(config).connect(name, tcp.await?).await
            })
        })
        .collect();
    timeout(SOON, world.tls("127.0.0.1", &[], None)).await.expect("a place").unwrap();
    assert!(connections.iter().all(|inbound| !inbound.is_finished()));
    // The last of them may only now have said where it wants to go.
    until(|| {
        world.gateway.drop_cluster(B);
        connections.iter().all(tokio::task::JoinHandle::is_finished)
    })
    .await;
    for inbound in connections {
        assert!(inbound.await.unwrap().is_err(), "told");
    }
}

#[tokio::test]
async fn a_dial_follows_the_api_server_to_its_next_address() {
    let world = World::with(Limits { dial_time: LONG, ..Limits::default() }).await;
    let there = world.book.clusters.lock().unwrap()[LABEL_A].api.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    world.book.add_cluster(LABEL_A, A, Some(gone), &world.link_a);
    let name = api(LABEL_A);
    let opening = world.tls_trusting(world.api_ca.roots(), &name, (&[], None));
    let mut opening = std::pin::pin!(opening);
    for next in [Some(gone), None] {
        world.book.add_cluster(LABEL_A, A, next, &world.link_a);
        assert!(timeout(Duration::from_millis(300), &mut opening).await.is_err(), "it waits for the next address");
    }
    world.book.add_cluster(LABEL_A, A, Some(there), &world.link_a);
    let mut person = timeout(SOON, opening).await.expect("followed").unwrap();
    echo(&mut person, b"kubectl").await;
}

#[tokio::test]
async fn a_visitor_who_stays_after_the_api_server_left_loses_the_place() {
    let world = World::with(Limits { half_closed: Duration::from_millis(50), ..Limits::default() }).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.book.add_cluster(LABEL_B, B, Some(listener.local_addr().unwrap()), &world.link_b);
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            // It has said all, and hears on.
            tcp.shutdown().await.unwrap();
            tokio::spawn(async move { tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await });
        }
    });
    let config = crate::world::client_config(world.api_ca.roots(), &[], None);
    let name = rustls_pki_types::ServerName::try_from(api(LABEL_B)).unwrap();
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut inbound = world.tcp().await;
    inbound.write_all(&hello).await.unwrap();
    until(|| world.gateway.counters().opened(Kind::Passthrough) == 1).await;
    until(|| world.gateway.counters().live(Kind::Passthrough) == 0).await;
    drop(inbound);
}
