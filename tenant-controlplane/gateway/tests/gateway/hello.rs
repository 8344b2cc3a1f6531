//! ClientHellos: whole, in pieces, too large, too slow, or none at all.

use std::{sync::Arc, time::Duration};

use gateway::{Kind, Limits, Refused};
use rustls::ClientConnection;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::world::{DOMAIN, LABEL_A, World, client_config, until};

/// A ClientHello for the API server of A, as bytes, and the connection that made it.
fn hello(world: &World) -> (ClientConnection, Vec<u8>) {
    let config = client_config(world.api_ca.roots(), &[], None);
    let name = ServerName::try_from(format!("{LABEL_A}.api.{DOMAIN}")).unwrap();
    let mut client = ClientConnection::new(Arc::clone(&config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    assert!(bytes.len() > 1400, "a post-quantum hello: {} bytes", bytes.len());
    (client, bytes)
}

/// Sends the hello in pieces of `size` bytes and expects the API server's ServerHello.
async fn answered_in_pieces(size: usize) {
    let world = World::new().await;
    let (mut client, bytes) = hello(&world);
    let mut tcp = world.tcp().await;
    for piece in bytes.chunks(size) {
        tcp.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    while client.is_handshaking() {
        let mut buffer = [0; 4096];
        let read = timeout(Duration::from_secs(10), tcp.read(&mut buffer)).await.unwrap().unwrap();
        assert!(read > 0, "closed in the middle of the handshake");
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
        let mut out = Vec::new();
        client.write_tls(&mut out).unwrap();
        tcp.write_all(&out).await.unwrap();
    }
    assert_eq!(world.gateway.counters().opened(Kind::Passthrough), 1);
}

#[tokio::test]
async fn whole() {
    answered_in_pieces(usize::MAX).await;
}

#[tokio::test]
async fn split_in_two() {
    answered_in_pieces(900).await;
}

#[tokio::test]
async fn byte_by_byte() {
    answered_in_pieces(1).await;
}

#[tokio::test]
async fn oversized_is_closed_and_bounded() {
    let world = World::new().await;
    let mut tcp = world.tcp().await;
    // A handshake message that says it is 60,000 bytes long, in records of 16,000.
    let mut bytes = vec![0x16, 3, 1, 0x3e, 0x80, 1, 0x00, 0xea, 0x60];
    bytes.resize(5 + 16_000, 0);
    bytes.extend([0x16, 3, 1, 0x3e, 0x80]);
    bytes.resize(2 * (5 + 16_000), 0);
    let _ = tcp.write_all(&bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(10), tcp.read_to_end(&mut answer)).await.expect("closed in time");
    assert_eq!(world.gateway.counters().refused(Refused::Hello), 1);
}

#[tokio::test]
async fn slow_is_closed_in_time_and_blocks_nobody() {
    let limits = Limits { hello_time: Duration::from_millis(400), pending: 8, ..Limits::default() };
    let world = World::with(limits).await;
    let (_, bytes) = hello(&world);
    let mut slow = Vec::new();
    for _ in 0..24 {
        let mut tcp = world.tcp().await;
        tcp.write_all(&bytes[..700]).await.unwrap();
        slow.push(tcp);
    }
    world.tls("127.0.0.1", &[], None).await.unwrap();
    for tcp in &mut slow {
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(5), tcp.read_to_end(&mut answer)).await.expect("closed in time");
    }
    let counters = world.gateway.counters();
    assert_eq!(counters.refused(Refused::Slow) + counters.refused(Refused::Crowd), 24, "late, or made room");
}

#[tokio::test]
async fn plain_http_is_told_so() {
    let world = World::new().await;
    let mut tcp = world.tcp().await;
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(10), tcp.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(body.contains("speaks TLS only"), "{answer}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
    assert_eq!(world.gateway.counters().refused(Refused::PlainHttp), 1);
}

#[tokio::test]
async fn rubbish_is_closed() {
    let world = World::new().await;
    for rubbish in [&b"\x00\x01\x02\x03"[..], b"ssh-2.0-x\r\n", b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00"] {
        let mut tcp = world.tcp().await;
        tcp.write_all(rubbish).await.unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(10), tcp.read_to_end(&mut answer)).await.expect("closed in time").unwrap();
    }
    drop(world.tcp().await);
    until(|| world.gateway.counters().refused(Refused::Hello) == 3).await;
}
