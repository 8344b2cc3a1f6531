//! CONNECT through a tunnel: routes, refusals, ends, aborts, caps, stalls.

use std::{io::ErrorKind, sync::atomic::Ordering::SeqCst, time::Duration};

use gateway::{Kind, Limits, Refused};
use h2::Reason;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    agent::{Agent, BULK, COUNT, ECHO, REFUSE, RESET, SILENT, STALL},
    world::{A, Client, DOMAIN, LABEL_A, World, echo, until},
};

/// The status line a CONNECT is answered with; after 200 the stream carries bytes.
pub async fn connect(world: &World, target: &str) -> (String, Client) {
    let name = format!("{LABEL_A}.egress.{DOMAIN}");
    let mut stream = world.tls(&name, &[], Some(world.link_a.egress(A))).await.unwrap();
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n\r\n") {
        let byte = timeout(Duration::from_secs(20), stream.read_u8()).await.expect("an answer in time").unwrap();
        reply.push(byte);
    }
    let reply = String::from_utf8(reply).unwrap();
    (reply.lines().next().unwrap().to_owned(), stream)
}

async fn open(world: &World, target: &str) -> Client {
    let (status, stream) = connect(world, target).await;
    assert_eq!(status, "HTTP/1.1 200 OK", "{target}");
    stream
}

#[tokio::test]
async fn a_node_by_name_in_any_case() {
    let world = World::new().await;
    let agent = Agent::join(&world).await;
    let mut stream = open(&world, &format!("Web-1:{ECHO}")).await;
    echo(&mut stream, b"logs").await;
    echo(&mut stream, &vec![3; 1_000_000]).await;
    assert_eq!(*agent.seen.asked.lock().unwrap(), [format!("web-1:{ECHO}")]);
    assert_eq!(world.gateway.links(A)[0].streams, 1);
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    until(|| world.gateway.links(A)[0].streams == 0 && world.gateway.counters().live(Kind::Stream) == 0).await;
    assert!(agent.seen.resets.lock().unwrap().is_empty());
}

#[tokio::test]
async fn pods_go_to_their_node_and_services_to_any() {
    let world = World::new().await;
    world.book.add_node(A, "nod_2", "web-2", "10.244.2.0/24");
    let (one, two) = (Agent::join(&world).await, Agent::join_as(&world, "nod_2").await);
    open(&world, &format!("10.244.2.9:{ECHO}")).await;
    open(&world, &format!("10.244.1.9:{ECHO}")).await;
    assert_eq!(*two.seen.asked.lock().unwrap(), [format!("10.244.2.9:{ECHO}")]);
    assert_eq!(*one.seen.asked.lock().unwrap(), [format!("10.244.1.9:{ECHO}")]);
    // A service: the less busy link.
    let _busy = open(&world, &format!("web-1:{ECHO}")).await;
    let _also = open(&world, &format!("web-1:{STALL}")).await;
    until(|| world.gateway.links(A).iter().any(|link| link.streams == 2)).await;
    let _service = open(&world, &format!("10.96.0.1:{ECHO}")).await;
    assert_eq!(two.seen.asked.lock().unwrap()[1], format!("10.96.0.1:{ECHO}"));
    drop(two);
    world.written("nod_2", false).await;
    // A node that is away is named, whether its own address is asked for or a pod's; a service still has somebody.
    for away in ["10.244.2.1:10250", "10.244.2.9:80"] {
        let (status, _) = connect(&world, away).await;
        assert_eq!(status, "HTTP/1.1 503 node web-2 has no tunnel: agent not connected", "{away}");
    }
    open(&world, &format!("10.96.0.2:{ECHO}")).await;
    // Without the directory nobody knows whose it is: an agent says whether it can reach it.
    world.book.down.store(true, SeqCst);
    open(&world, &format!("10.244.2.9:{ECHO}")).await;
    assert!(one.seen.asked.lock().unwrap().contains(&format!("10.244.2.9:{ECHO}")));
}

#[tokio::test]
async fn refusals_have_reasons() {
    let world = World::new().await;
    let status = async |target: &str| connect(&world, target).await.0;
    assert_eq!(status("web-9:10250").await, "HTTP/1.1 503 node web-9 has no tunnel: agent not connected");
    assert_eq!(
        status("10.96.0.1:443").await,
        "HTTP/1.1 503 cannot reach 10.96.0.1:443: no node of this cluster has a tunnel"
    );
    let _agent = Agent::join(&world).await;
    assert_eq!(status("web-9:10250").await, "HTTP/1.1 503 node web-9 has no tunnel: agent not connected");
    assert_eq!(status(&format!("web-1:{REFUSE}")).await, "HTTP/1.1 403 port 2 is not served on node web-1");
    for target in ["example.com:443", "127.0.0.1:6443", "169.254.169.254:80", "localhost:22", "[::1]:80"] {
        assert!(status(target).await.starts_with("HTTP/1.1 403 "), "{target}");
    }
    assert!(status("web-1").await.starts_with("HTTP/1.1 400 "));
    assert_eq!(world.gateway.counters().refused(Refused::Connect), 10);
}

#[tokio::test]
async fn an_agent_that_does_not_answer_is_answered_for() {
    let world = World::with(Limits { connect_time: Duration::from_millis(300), ..Limits::default() }).await;
    let agent = Agent::join(&world).await;
    let (status, _) = connect(&world, &format!("web-1:{SILENT}")).await;
    assert_eq!(status, "HTTP/1.1 504 node web-1 did not answer within 0.3 s");
    until(|| world.gateway.links(A)[0].streams == 0).await;
    echo(&mut open(&world, &format!("web-1:{ECHO}")).await, b"others go on").await;
    drop(agent);
}

#[tokio::test]
async fn a_front_that_sends_nothing_is_answered_too() {
    let world = World::with(Limits { connect_time: Duration::from_millis(200), ..Limits::default() }).await;
    let name = format!("{LABEL_A}.egress.{DOMAIN}");
    let mut stream = world.tls(&name, &[], Some(world.link_a.egress(A))).await.unwrap();
    let mut reply = String::new();
    timeout(Duration::from_secs(10), stream.read_to_string(&mut reply)).await.unwrap().unwrap();
    assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
}

#[tokio::test]
async fn a_half_close_travels_and_the_answer_comes_back() {
    let world = World::new().await;
    let agent = Agent::join(&world).await;
    let mut stream = open(&world, &format!("web-1:{COUNT}")).await;
    stream.write_all(&vec![1; 700_001]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "700001");
    assert_eq!(agent.seen.ended.load(SeqCst), 1);
}

#[tokio::test]
async fn an_agents_reset_is_an_abort_at_the_front() {
    let world = World::new().await;
    let _agent = Agent::join(&world).await;
    let mut stream = open(&world, &format!("web-1:{RESET}")).await;
    stream.write_all(b"x").await.unwrap();
    let error = timeout(Duration::from_secs(10), stream.read(&mut [0; 1])).await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "no close_notify: {error}");
    until(|| world.gateway.links(A)[0].streams == 0).await;
}

#[tokio::test]
async fn a_front_that_breaks_off_is_a_reset_at_the_agent() {
    let world = World::new().await;
    let agent = Agent::join(&world).await;
    for port in [COUNT, ECHO, STALL] {
        let mut stream = open(&world, &format!("web-1:{port}")).await;
        stream.write_all(b"some").await.unwrap();
        // Dropped without close_notify.
        drop(stream.into_inner().0);
    }
    until(|| agent.seen.resets.lock().unwrap().len() == 3).await;
    assert_eq!(*agent.seen.resets.lock().unwrap(), [Reason::CONNECT_ERROR; 3]);
    assert_eq!(agent.seen.ended.load(SeqCst), 0);
}

#[tokio::test]
async fn a_lost_link_is_an_abort_and_the_next_connect_is_told() {
    let world = World::new().await;
    let agent = Agent::join(&world).await;
    let mut stream = open(&world, &format!("web-1:{ECHO}")).await;
    echo(&mut stream, b"before").await;
    drop(agent);
    let error = timeout(Duration::from_secs(10), stream.read(&mut [0; 1])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    world.written("nod_1", false).await;
    let (status, _) = connect(&world, "web-1:10250").await;
    assert_eq!(status, "HTTP/1.1 503 node web-1 has no tunnel: agent not connected");
}

#[tokio::test]
async fn fifty_stalled_streams_do_not_stop_an_echo() {
    let world = World::new().await;
    let _agent = Agent::join(&world).await;
    let mut stalled = Vec::new();
    for at in 0..50 {
        // Half of them stalled by the agent, half by a front that does not read.
        let port = if at % 2 == 0 { STALL } else { BULK };
        let mut stream = open(&world, &format!("web-1:{port}")).await;
        if port == STALL {
            let flood = timeout(Duration::from_millis(50), async {
                loop {
                    stream.write_all(&[0; 64 * 1024]).await.unwrap();
                }
            });
            assert!(flood.await.is_err());
        }
        stalled.push(stream);
    }
    let mut stream = open(&world, &format!("web-1:{ECHO}")).await;
    for _ in 0..20 {
        echo(&mut stream, &[5; 200]).await;
    }
    echo(&mut stream, &vec![6; 500_000]).await;
    assert_eq!(world.gateway.counters().live(Kind::Stream), 51);
    for stream in stalled {
        // Gone at once, as a killed process behind a full pipe is.
        SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO)).unwrap();
    }
    until(|| world.gateway.counters().live(Kind::Stream) == 1).await;
}

#[tokio::test]
async fn beyond_a_cap_the_answer_is_503() {
    let world = World::with(Limits { streams_per_link: 3, streams_per_cluster: 4, ..Limits::default() }).await;
    world.book.add_node(A, "nod_2", "web-2", "10.244.2.0/24");
    let (_one, _two) = (Agent::join(&world).await, Agent::join_as(&world, "nod_2").await);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(open(&world, &format!("web-1:{ECHO}")).await);
    }
    let (status, _) = connect(&world, &format!("web-1:{ECHO}")).await;
    assert_eq!(status, "HTTP/1.1 503 too many open tunnel streams to node web-1 (limit 3)");
    held.push(open(&world, &format!("web-2:{ECHO}")).await);
    let (status, _) = connect(&world, &format!("web-2:{ECHO}")).await;
    assert_eq!(status, "HTTP/1.1 503 too many open tunnel streams in this cluster (limit 4)");
    held.clear();
    until(|| world.gateway.counters().live(Kind::Stream) == 0).await;
    open(&world, &format!("web-1:{ECHO}")).await;
}

#[tokio::test]
async fn an_agents_own_lower_cap_counts() {
    let world = World::new().await;
    let _agent = Agent::start(&world, world.link_a.node(A, "nod_1"), 2).await;
    world.written("nod_1", true).await;
    let _held = [open(&world, &format!("web-1:{ECHO}")).await, open(&world, &format!("web-1:{ECHO}")).await];
    let (status, _) = connect(&world, &format!("web-1:{ECHO}")).await;
    assert_eq!(status, "HTTP/1.1 503 too many open tunnel streams to node web-1 (limit 2)");
}

#[tokio::test]
async fn a_front_half_closed_and_forgotten_ends() {
    let world = World::with(Limits { half_closed: Duration::from_millis(200), ..Limits::default() }).await;
    let agent = Agent::join(&world).await;
    let mut stream = open(&world, &format!("web-1:{STALL}")).await;
    stream.shutdown().await.unwrap();
    until(|| agent.seen.resets.lock().unwrap().len() == 1).await;
    until(|| world.gateway.counters().live(Kind::Stream) == 0).await;
}

#[tokio::test]
async fn a_stalled_stream_whose_front_is_gone_is_reset() {
    let world = World::new().await;
    let agent = Agent::join(&world).await;
    let mut stream = open(&world, &format!("web-1:{STALL}")).await;
    let flood = timeout(Duration::from_millis(200), async {
        loop {
            stream.write_all(&[0; 64 * 1024]).await.unwrap();
        }
    });
    assert!(flood.await.is_err());
    SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    until(|| agent.seen.resets.lock().unwrap().len() == 1).await;
    until(|| world.gateway.links(A)[0].streams == 0).await;
}

#[tokio::test]
async fn many_streams_at_once() {
    let world = World::new().await;
    let _agent = Agent::join(&world).await;
    let mut streams = futures::future::join_all((0..120).map(|_| open(&world, "web-1:7"))).await;
    let large = vec![9; 40_000];
    futures::future::join_all(streams.iter_mut().map(|stream| echo(stream, &large))).await;
    assert_eq!(world.gateway.links(A)[0].streams, 120);
}

#[tokio::test]
async fn beyond_the_memory_of_all_tunnels_the_answer_says_so() {
    let stream = 128 * 1024;
    let world = World::with(Limits { tunnel_bytes: 2 * stream, ..Limits::default() }).await;
    let _agent = Agent::join(&world).await;
    let _held = [open(&world, &format!("web-1:{ECHO}")).await, open(&world, &format!("web-1:{ECHO}")).await];
    let (status, _) = connect(&world, &format!("web-1:{ECHO}")).await;
    assert!(status.starts_with("HTTP/1.1 503 tunnel buffer limit of the gateway (1 MiB)"), "{status}");
}

#[tokio::test]
async fn beyond_the_memory_of_a_clusters_tunnels_the_answer_says_so() {
    let stream = 128 * 1024;
    let world = World::with(Limits { tunnel_bytes_per_cluster: stream, ..Limits::default() }).await;
    let _agent = Agent::join(&world).await;
    let held = open(&world, &format!("web-1:{ECHO}")).await;
    let (status, _) = connect(&world, &format!("web-1:{ECHO}")).await;
    assert!(status.starts_with("HTTP/1.1 503 tunnel buffer limit of this cluster (1 MiB)"), "{status}");
    drop(held);
    until(|| world.gateway.counters().live(Kind::Stream) == 0).await;
    open(&world, &format!("web-1:{ECHO}")).await;
}

#[tokio::test]
async fn windows_are_small_until_a_stream_is_fast() {
    let world = World::new().await;
    let _agent = Agent::join(&world).await;
    let _stalled = open(&world, &format!("web-1:{STALL}")).await;
    assert_eq!(world.gateway.links(A)[0].window, 64 * 1024);
    let mut bulk = open(&world, &format!("web-1:{BULK}")).await;
    let mut buffer = vec![0; 64 * 1024];
    let grown = async {
        while world.gateway.links(A)[0].window < 512 * 1024 {
            bulk.read_exact(&mut buffer).await.unwrap();
        }
    };
    timeout(Duration::from_secs(20), grown).await.expect("a fast stream's window grows");
    echo(&mut open(&world, &format!("web-1:{ECHO}")).await, &vec![6; 500_000]).await;
}
