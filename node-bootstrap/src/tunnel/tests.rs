//! The tunnel's server against an HTTP/2 client in the same process, over a pipe, with real TCP targets.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::serve;
use super::target::Targets;
use node_protocol::header::TUNNEL_REASON;

const LIMIT: Duration = Duration::from_secs(20);

/// A tunnel whose targets are on this machine's loopback: the "kubelet" is `kubelet`, the pods are 127.0.0.0/16.
async fn tunnel(kubelet: SocketAddr) -> SendRequest<Bytes> {
    let mut targets = Targets::new(
        "n1",
        "127.0.255.1".parse().unwrap(),
        "127.0.0.0/16".parse().unwrap(),
        "10.96.0.0/16".parse().unwrap(),
    );
    targets.kubelet = kubelet;
    let (near, far) = tokio::io::duplex(256 * 1024);
    let (keep, targets) = watch::channel(targets);
    tokio::spawn(async move {
        let _ = serve(far, targets).await;
        drop(keep);
    });
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(256 * 1024).initial_connection_window_size(1 << 30);
    let (client, connection) = builder.handshake(near).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn connect(client: &SendRequest<Bytes>, to: &str) -> (http::Response<h2::RecvStream>, h2::SendStream<Bytes>) {
    let mut client = client.clone().ready().await.unwrap();
    let request = Request::builder().method(Method::CONNECT).uri(to).body(()).unwrap();
    let (response, body) = client.send_request(request, false).unwrap();
    let response = tokio::time::timeout(LIMIT, response).await.unwrap().unwrap();
    (response, body)
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A target that gives every byte back.
async fn echo() -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
        }
    });
    address
}

async fn read_all(mut body: h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

#[tokio::test]
async fn kubelet_and_pods_are_reached_and_ends_are_ends() {
    let target = echo().await;
    let client = tunnel(target).await;
    for asked in ["n1:10250".to_owned(), target.to_string()] {
        let (response, mut body) = connect(&client, &asked).await;
        assert_eq!(response.status(), StatusCode::OK);
        body.send_data(Bytes::from_static(b"hello"), true).unwrap();
        assert_eq!(read_all(response.into_body()).await.unwrap(), b"hello", "{asked}");
    }
}

#[tokio::test]
async fn other_targets_are_refused_with_a_reason() {
    let client = tunnel(echo().await).await;
    for asked in ["n1:22", "192.0.2.1:80", "other:10250"] {
        let (response, _body) = connect(&client, asked).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let reason = response.headers()[TUNNEL_REASON].to_str().unwrap();
        assert!(reason.contains("n1") && reason.contains(asked), "{reason}");
        assert!(response.body().is_end_stream());
    }
}

#[tokio::test]
async fn nobody_at_the_target_is_said() {
    let (listener, address) = listener().await;
    drop(listener);
    let client = tunnel(address).await;
    let (response, _body) = connect(&client, "n1:10250").await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(response.headers()[TUNNEL_REASON].to_str().unwrap().contains("refused"));
}

#[tokio::test]
async fn a_targets_abort_reaches_the_gateway_as_a_reset() {
    let (listener, address) = listener().await;
    let client = tunnel(address).await;
    let (response, _body) = connect(&client, "n1:10250").await;
    let (stream, _) = listener.accept().await.unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    let error = tokio::time::timeout(LIMIT, read_all(response.into_body())).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::CONNECT_ERROR));
}

#[tokio::test]
async fn a_gateways_reset_reaches_the_target_as_an_abort() {
    let (listener, address) = listener().await;
    let client = tunnel(address).await;
    let (_response, mut body) = connect(&client, "n1:10250").await;
    let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
    body.send_reset(h2::Reason::CANCEL);
    let seen = tokio::time::timeout(LIMIT, stream.read(&mut [0; 8])).await.unwrap();
    assert_eq!(seen.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_stalled_stream_does_not_hold_the_others() {
    let target = echo().await;
    let client = tunnel(target).await;
    // Twenty streams that get data back and never read it.
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let (response, mut body) = connect(&client, "n1:10250").await;
        body.reserve_capacity(128 * 1024);
        body.send_data(Bytes::from(vec![1; 128 * 1024]), false).unwrap();
        stalled.push((response, body));
    }
    let (response, mut body) = connect(&client, "n1:10250").await;
    body.send_data(Bytes::from_static(b"still here"), true).unwrap();
    let answer = tokio::time::timeout(LIMIT, read_all(response.into_body())).await.unwrap().unwrap();
    assert_eq!(answer, b"still here");
}

#[tokio::test]
async fn many_streams_at_once() {
    let target = echo().await;
    let client = tunnel(target).await;
    let streams = (0..300_u32).map(|number| {
        let client = client.clone();
        tokio::spawn(async move {
            let (response, mut body) = connect(&client, "n1:10250").await;
            assert_eq!(response.status(), StatusCode::OK);
            body.send_data(Bytes::from(number.to_string()), true).unwrap();
            assert_eq!(read_all(response.into_body()).await.unwrap(), number.to_string().as_bytes());
        })
    });
    for stream in streams.collect::<Vec<_>>() {
        tokio::time::timeout(LIMIT, stream).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&vec![9; 3_000_000]).await.unwrap();
    });
    let client = tunnel(address).await;
    let (response, _body) = connect(&client, "n1:10250").await;
    let all = tokio::time::timeout(LIMIT, read_all(response.into_body())).await.unwrap().unwrap();
    assert_eq!(all.len(), 3_000_000);
}
