//! Two gateways of one installation: a node that is linked to the other one.

use std::{io::ErrorKind, time::Duration};

use gateway::{Kind, Limits, NodeRoute, RemoteLink};
use node_protocol::{alpn, server_name};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    agent::{Agent, COUNT, ECHO, REFUSE, RESET, STALL},
    pki::Leaf,
    tunnel::connect,
    world::{A, Client, DOMAIN, World, echo, until},
};

/// A gateway to which `web-1` is linked, its agent, and another gateway.
async fn linked_elsewhere() -> (World, Agent, World) {
    let there = World::new().await;
    let agent = Agent::join(&there).await;
    there.note_link();
    let here = there.beside(Limits::default()).await;
    (there, agent, here)
}

impl World {
    /// What a directory says once `web-1` has its tunnel at this gateway.
    fn note_link(&self) {
        let node = NodeRoute { name: "web-1".into(), pod_cidr: "10.244.1.0/24".parse().unwrap() };
        let link = RemoteLink { node, gateway: self.id.clone(), address: self.address };
        *self.book.remote.lock().unwrap() = vec![link];
    }

    async fn as_gateway(&self, id: &str, leaf: Option<Leaf>) -> std::io::Result<Client> {
        let mut stream = self.tls(&server_name::gateway(id, DOMAIN), &[alpn::GATEWAY], leaf).await?;
        // With TLS 1.3 a client hears of its own certificate's rejection at its first read.
        stream
            .write_all(format!("CONNECT web-1:{ECHO} HTTP/1.1\r\nX-Pilothouse-Cluster: {A}\r\n\r\n").as_bytes())
            .await?;
        stream.read_exact(&mut [0; 15]).await?;
        Ok(stream)
    }
}

async fn open(world: &World, target: &str) -> Client {
    let (status, stream) = connect(world, target).await;
    assert_eq!(status, "HTTP/1.1 200 OK", "{target}");
    stream
}

#[tokio::test]
async fn a_node_is_reached_through_the_gateway_it_is_linked_to() {
    let (there, agent, here) = linked_elsewhere().await;
    // By its name, by a pod's address, and by what lies on no node.
    for target in ["Web-1", "10.244.1.9", "10.96.0.1"] {
        let mut stream = open(&here, &format!("{target}:{ECHO}")).await;
        echo(&mut stream, b"logs").await;
        echo(&mut stream, &vec![3; 1_000_000]).await;
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "an end stays an end");
    }
    let mut counted = open(&here, &format!("web-1:{COUNT}")).await;
    counted.write_all(&vec![1; 700_001]).await.unwrap();
    counted.shutdown().await.unwrap();
    let mut answer = String::new();
    counted.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "700001");
    let asked = agent.seen.asked.lock().unwrap().clone();
    assert_eq!(asked[..2], [format!("web-1:{ECHO}"), format!("10.244.1.9:{ECHO}")]);
    assert_eq!(connect(&here, &format!("web-1:{REFUSE}")).await.0, "HTTP/1.1 403 port 2 is not served on node web-1");
    for gateway in [&here.gateway, &there.gateway] {
        until(|| gateway.counters().live(Kind::Forwarded) == 0 && gateway.counters().live(Kind::Egress) == 0).await;
    }
    assert!(agent.seen.resets.lock().unwrap().is_empty());
    // What the directory said last holds while it is silent.
    here.book.down.store(true, std::sync::atomic::Ordering::SeqCst);
    echo(&mut open(&here, &format!("web-1:{ECHO}")).await, b"still").await;
}

#[tokio::test]
async fn aborts_travel_through_both() {
    let (_there, agent, here) = linked_elsewhere().await;
    let mut stream = open(&here, &format!("web-1:{RESET}")).await;
    stream.write_all(b"x").await.unwrap();
    let error = timeout(Duration::from_secs(10), stream.read(&mut [0; 1])).await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "no close_notify: {error}");
    // A front that breaks off, also one whose stream is stalled.
    let mut broken = open(&here, &format!("web-1:{ECHO}")).await;
    broken.write_all(b"some").await.unwrap();
    drop(broken.into_inner().0);
    let mut stalled = open(&here, &format!("web-1:{STALL}")).await;
    let flood = timeout(Duration::from_millis(200), async {
        loop {
            stalled.write_all(&[0; 64 * 1024]).await.unwrap();
        }
    });
    assert!(flood.await.is_err());
    SockRef::from(stalled.get_ref().0).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stalled);
    until(|| agent.seen.resets.lock().unwrap().len() == 2).await;
}

#[tokio::test]
async fn the_link_comes_back_at_the_other_gateway() {
    let there = World::with(Limits { drain: Duration::ZERO, ..Limits::default() }).await;
    let agent = Agent::join(&there).await;
    there.note_link();
    let here = there.beside(Limits::default()).await;
    let mut stream = open(&here, &format!("web-1:{ECHO}")).await;
    echo(&mut stream, b"before").await;
    there.cancel.cancel();
    until(|| there.running.is_finished()).await;
    let error = timeout(Duration::from_secs(10), stream.read(&mut [0; 1])).await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}");
    let (status, _) = connect(&here, &format!("web-1:{ECHO}")).await;
    assert_eq!(status, "HTTP/1.1 504 node web-1 is linked to a gateway that does not answer");
    drop(agent);
    let again = Agent::join(&here).await;
    echo(&mut open(&here, &format!("web-1:{ECHO}")).await, b"after").await;
    assert_eq!(*again.seen.asked.lock().unwrap(), [format!("web-1:{ECHO}")]);
}

#[tokio::test]
async fn no_request_travels_twice() {
    // Each is said to have what neither has.
    let one = World::new().await;
    let two = one.beside(Limits::default()).await;
    let node = NodeRoute { name: "web-1".into(), pod_cidr: "10.244.1.0/24".parse().unwrap() };
    let at = |world: &World| RemoteLink { node: node.clone(), gateway: world.id.clone(), address: world.address };
    *one.book.remote.lock().unwrap() = vec![at(&one), at(&two)];
    for (asked, other) in [(&one, &two), (&two, &one)] {
        let before = other.gateway.counters().opened(Kind::Forwarded);
        let (status, _) = connect(asked, "web-1:10250").await;
        assert_eq!(status, "HTTP/1.1 503 node web-1 has no tunnel: agent not connected");
        until(|| asked.gateway.counters().live(Kind::Forwarded) == 0).await;
        assert_eq!(other.gateway.counters().opened(Kind::Forwarded), before + 1);
    }
}

#[tokio::test]
async fn only_gateways_are_forwarded_for() {
    let (there, agent, _here) = linked_elsewhere().await;
    let gateway = there.platform.gateway(&["x"]);
    assert!(there.as_gateway(&there.id, Some(gateway.clone())).await.is_ok());
    let another = crate::pki::Authority::new("platform");
    for (who, leaf) in [
        ("nobody", None),
        ("a node", Some(there.link_a.node(A, "nod_1"))),
        ("an API server", Some(there.link_a.egress(A))),
        ("a gateway by a cluster's authority", Some(there.link_a.gateway(&["x"]))),
        ("a gateway of another installation", Some(another.gateway(&["x"]))),
        ("a server of this one that is no gateway", Some(there.platform.server(&["x"]))),
        ("a client of this one that is no gateway", Some(there.platform.egress(A))),
    ] {
        assert!(there.as_gateway(&there.id, leaf).await.is_err(), "{who}");
    }
    assert!(there.as_gateway(&format!("{:032x}", 7), Some(gateway)).await.is_err(), "not this one's id");
    assert_eq!(agent.seen.asked.lock().unwrap().len(), 1);
}
