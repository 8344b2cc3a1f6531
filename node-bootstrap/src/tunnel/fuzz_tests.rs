//! Changed frames of HTTP/2 at the tunnel's server, and changed targets.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::watch;

use super::target::Targets;
use super::{TunnelError, serve};

#[path = "../../../tests/support/fuzz.rs"]
mod fuzz;

/// Loopback, where nobody listens: nothing else may be dialled, whatever is asked for.
fn targets() -> Targets {
    let mut targets = Targets::new(
        "n1",
        "127.0.255.7".parse().unwrap(),
        "127.0.255.7/32".parse().unwrap(),
        "127.0.254.7/32".parse().unwrap(),
    );
    targets.kubelet = "127.0.0.1:1".parse().unwrap();
    targets
}

/// What a gateway sends that opens these streams.
async fn recorded(asked: &[&str]) -> Vec<u8> {
    let (near, mut far) = duplex(1 << 20);
    let (client, connection) = h2::client::handshake(near).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut open = Vec::new();
    for to in asked {
        let request = Request::builder().method(Method::CONNECT).uri(*to).body(()).unwrap();
        let (response, mut body) = client.clone().ready().await.unwrap().send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"GET /healthz HTTP/1.1\r\n\r\n"), false).unwrap();
        open.push((response, body));
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    connection.abort();
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[test]
fn a_tunnel_of_any_frames() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let streams: [&[&str]; 3] = [&["n1:10250"], &["n1:22", "10.0.0.1:443"], &["n1:10250"; 5]];
    let corpus: Vec<Vec<u8>> = streams.iter().map(|asked| runtime.block_on(recorded(asked))).collect();
    assert!(corpus.iter().all(|bytes| bytes.starts_with(b"PRI * HTTP/2.0") && bytes.len() > 90), "{corpus:?}");
    fuzz::run("tunnel frames", &corpus, |input| {
        runtime.block_on(async {
            let (mut gateway, agent) = duplex(1 << 20);
            let (_keep, targets) = watch::channel(targets());
            gateway.write_all(input).await.unwrap();
            gateway.shutdown().await.unwrap();
            let ended = serve(agent, targets).await;
            assert!(!matches!(ended, Err(TunnelError::Silent)), "it ends with its connection");
            // What it left running says nothing to a gateway that is gone.
            tokio::time::sleep(Duration::ZERO).await;
        });
    });
}

#[test]
fn a_target_of_any_text() {
    let known = targets();
    let asked = ["n1:10250", "127.0.255.7:8080", "127.0.254.7:53", "[::ffff:127.0.255.7]:80", "192.0.2.1:22", "n1"];
    let corpus: Vec<Vec<u8>> = asked.iter().map(|text| text.as_bytes().to_vec()).collect();
    fuzz::run("tunnel target", &corpus, |input| {
        if let Ok(address) = known.resolve(&String::from_utf8_lossy(input)) {
            let ip = address.ip().to_string();
            assert!(address == known.kubelet || ip == "127.0.255.7" || ip == "127.0.254.7", "{address}");
        }
    });
}
