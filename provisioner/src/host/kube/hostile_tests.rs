//! The real client against API servers that mean harm: real sockets, plain HTTP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::kube::Config;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::super::bounded::{ANSWER, LINE};
use super::super::{ApiError, Kubernetes, LIST_LIMIT, ObjectKey, WatchEvent};
use super::{KubeApi, METADATA_PAGE, bounded};

/// How an API server answers.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    /// With a body that does not end.
    Endless,
    /// A watch with a line that does not end; a list with nothing.
    EndlessLine,
    /// One byte, and no more.
    Drip,
    /// With empty pages, each of which says that there is another.
    Pages,
}

/// What a connection came to: how many bytes were sent on it, and in how many answers.
type Sent = (usize, usize);

/// Starts one; the receiver tells of each connection when it has ended.
async fn server(answer: Answer) -> (SocketAddr, mpsc::UnboundedReceiver<Sent>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (ended, connections)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ended = ended.clone();
            tokio::spawn(async move {
                let (bytes, answers) = (AtomicUsize::new(0), AtomicUsize::new(0));
                // The other side going is what ends it.
                let _ = serve(stream, answer, (&bytes, &answers)).await;
                let _ = ended.send((bytes.into_inner(), answers.into_inner()));
            });
        }
    });
    (address, connections)
}

async fn serve(
    mut stream: TcpStream,
    answer: Answer,
    (bytes, answers): (&AtomicUsize, &AtomicUsize),
) -> std::io::Result<()> {
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    loop {
        let watch = read_head(&mut stream).await?.contains("watch=true");
        answers.fetch_add(1, Ordering::SeqCst);
        match answer {
            Answer::Endless => endless(&mut stream, CHUNKED, bytes).await?,
            Answer::EndlessLine if watch => endless(&mut stream, CHUNKED, bytes).await?,
            Answer::EndlessLine => write_list(&mut stream, "").await?,
            Answer::Pages => write_list(&mut stream, "more").await?,
            Answer::Drip => {
                stream.write_all(CHUNKED).await?;
                stream.write_all(b"1\r\n{\r\n").await?;
                // Until the other side goes.
                stream.read_exact(&mut [0]).await?;
            }
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn endless(stream: &mut TcpStream, head: &[u8], bytes: &AtomicUsize) -> std::io::Result<()> {
    let chunk = [b"10000\r\n".as_slice(), &[b'a'; 0x10000], b"\r\n"].concat();
    stream.write_all(head).await?;
    loop {
        stream.write_all(&chunk).await?;
        bytes.fetch_add(0x10000, Ordering::SeqCst);
    }
}

async fn write_list(stream: &mut TcpStream, next: &str) -> std::io::Result<()> {
    let metadata = format!(r#""metadata":{{"resourceVersion":"1","continue":"{next}"}}"#);
    let body = format!(r#"{{"kind":"List","apiVersion":"v1",{metadata},"items":[]}}"#);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await
}

fn client(address: SocketAddr) -> KubeApi {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = Config::new(format!("http://{address}").parse().unwrap());
    // Nothing here is encrypted, and the machine's own authorities are not asked for.
    config.root_cert = Some(Vec::new());
    KubeApi { client: bounded(config).unwrap(), limit: Duration::from_secs(60) }
}

/// What lies in sockets and in the client's read buffer besides.
const IN_TRANSIT: usize = 16 << 20;

#[tokio::test]
async fn an_answer_without_an_end_is_broken_off() {
    let (address, mut connections) = server(Answer::Endless).await;
    let api = client(address);
    let key = ObjectKey::namespaced("v1", "ConfigMap", "default", "a");
    let failed = api.get(&key).await.unwrap_err();
    assert!(matches!(failed, ApiError::TooLong(_)), "{failed:?}");
    let (sent, _) = connections.recv().await.unwrap();
    assert!(sent < ANSWER + IN_TRANSIT, "{sent} bytes were taken");
    let failed = api.apply(&serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}})).await;
    assert!(matches!(failed, Err(ApiError::TooLong(_))), "what was held is free again, and the next is bounded too");
}

#[tokio::test]
async fn a_watch_whose_line_does_not_end_breaks() {
    let (address, mut connections) = server(Answer::EndlessLine).await;
    let mut watch = client(address).watch_nodes();
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::All(nodes))) if nodes.is_empty()));
    assert!(matches!(watch.next().await, Some(Err(_))));
    drop(watch);
    let (sent, _) = connections.recv().await.unwrap();
    assert!(sent < LINE + IN_TRANSIT, "{sent} bytes were taken");
}

#[tokio::test]
async fn an_answer_that_drips_is_not_waited_for() {
    let (address, mut connections) = server(Answer::Drip).await;
    let api = KubeApi { limit: Duration::from_millis(200), ..client(address) };
    assert!(matches!(api.answers().await, Err(ApiError::Timeout)));
    let failed = api.exists(&ObjectKey::global("v1", "Node", "a")).await;
    assert!(matches!(failed, Err(ApiError::Timeout)), "{failed:?}");
    assert!(connections.recv().await.is_some(), "its connection is closed");
}

#[tokio::test]
async fn a_list_whose_pages_do_not_end_is_given_up() {
    let (address, mut connections) = server(Answer::Pages).await;
    let failed = client(address).metadata("v1", "ConfigMap", Some("default"), "a=b").await;
    assert!(matches!(failed, Err(ApiError::TooLong(_))), "{failed:?}");
    let (_, answers) = connections.recv().await.unwrap();
    assert!(answers <= LIST_LIMIT / METADATA_PAGE as usize, "{answers} pages were asked for");
}
