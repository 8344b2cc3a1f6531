//! Connections as strangers use them: over a pipe, with a real HTTP/2 client where it is about HTTP/2.

use axum::body::Bytes;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);

fn times() -> Times {
    Times { word: LONG, idle: LONG, stalled: LONG, age: LONG, last: LONG }
}

fn app() -> Router {
    let piece = || Ok::<_, std::io::Error>(Bytes::from_static(&[7; 64 << 10]));
    let large = move || async move { Body::from_stream(futures::stream::repeat_with(piece)) };
    Router::new().route("/", get(|| async { "here" })).route("/large", get(large))
}

fn served(times: Times) -> DuplexStream {
    let (ours, theirs) = duplex(4096);
    let from = Connection { address: [127, 0, 0, 1].into(), tls: false };
    let portal = Portal { times, ..Portal::new(app()) };
    tokio::spawn(async move { portal.serve(theirs, from, None).await });
    ours
}

async fn ends(mut ours: DuplexStream) -> Vec<u8> {
    let mut said = Vec::new();
    let ended = tokio::time::timeout(LONG, ours.read_to_end(&mut said)).await;
    ended.expect("the connection is held").ok();
    said
}

#[tokio::test]
async fn whoever_says_nothing_or_half_a_word_is_let_go() {
    for word in ["", "GET / HT"] {
        let mut ours = served(Times { word: SHORT, ..times() });
        ours.write_all(word.as_bytes()).await.unwrap();
        ends(ours).await;
    }
}

#[tokio::test]
async fn a_request_in_time_is_answered() {
    let mut ours = served(times());
    ours.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut said = String::new();
    ours.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("here"), "{said}");
}

#[tokio::test]
async fn an_idle_connection_ends_after_its_answer() {
    let mut ours = served(Times { idle: SHORT, ..times() });
    ours.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let said = ends(ours).await;
    assert!(said.ends_with(b"here"));
}

#[tokio::test]
async fn an_old_connection_ends_though_it_is_used() {
    let ours = served(Times { age: SHORT, ..times() });
    let (client, connection) = h2::client::handshake(ours).await.unwrap();
    let ended = tokio::spawn(connection);
    while let Ok(mut ready) = client.clone().ready().await {
        let Ok((answer, _)) = ready.send_request(Request::get("http://a/").body(()).unwrap(), true) else { break };
        if answer.await.is_err() {
            break;
        }
    }
    drop(client);
    tokio::time::timeout(LONG, ended).await.expect("it ends").unwrap().ok();
}

#[tokio::test]
async fn a_connection_whose_answers_nobody_reads_is_cut() {
    let ours = served(Times { stalled: SHORT, ..times() });
    let (mut client, connection) =
        h2::client::Builder::new().initial_window_size(1).handshake::<_, Bytes>(ours).await.unwrap();
    let ended = tokio::spawn(connection);
    let (answer, _) = client.send_request(Request::get("http://a/large").body(()).unwrap(), true).unwrap();
    let _unread = answer.await.unwrap();
    tokio::time::timeout(LONG, ended).await.expect("it is cut").unwrap().ok();
}

#[tokio::test]
async fn a_connection_has_sixteen_streams() {
    let ours = served(times());
    let (client, connection) = h2::client::handshake(ours).await.unwrap();
    tokio::spawn(connection);
    let mut ready = client.ready().await.unwrap();
    let (answer, _) = ready.send_request(Request::get("http://a/").body(()).unwrap(), true).unwrap();
    answer.await.unwrap();
    assert_eq!(ready.current_max_send_streams(), 16);
}

#[tokio::test]
async fn header_lists_beyond_the_bound_are_refused() {
    let mut ours = served(times());
    let many: String = (0..HTTP1.1).map(|at| format!("x-{at}: y\r\n")).collect();
    ours.write_all(format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n").as_bytes()).await.unwrap();
    let said = String::from_utf8(ends(ours).await).unwrap();
    assert!(said.starts_with("HTTP/1.1 431"), "{said}");
}

/// An HTTP/2 frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Windows as large as they can be, and `GET /` with this path on each of so many streams (HPACK, RFC 7541).
fn holding(path: &str, streams: u32) -> Vec<u8> {
    let largest = ((1_u32 << 31) - 1).to_be_bytes();
    let fields = [&[0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()], path.as_bytes(), &[0x01, 1, b'a']].concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[&[0, 4], &largest[..]].concat()));
    bytes.extend(frame(8, 0, 0, &((1_u32 << 31) - 1 - 65_535).to_be_bytes()));
    (0..streams).for_each(|at| bytes.extend(frame(1, 5, 2 * at + 1, &fields)));
    bytes
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// 64 connections, 200 streams each, of answers of 4 MiB (the agent's kind) and of pages made for each caller: nobody reads them.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_hold_little() {
    let agent = Bytes::from(vec![7; 4 << 20]);
    let asked = Arc::new([const { std::sync::atomic::AtomicUsize::new(0) }; 2]);
    let note = |which: usize| {
        let asked = asked.clone();
        move || asked[which].fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    };
    let (agents, pages) = (note(0), note(1));
    let app = Router::new()
        .route(
            "/agent",
            get(move || async move {
                agents();
                agent.clone()
            }),
        )
        .route(
            "/page",
            get(move || async move {
                pages();
                vec![7; 1 << 20]
            }),
        );
    let portal = Portal { times: times(), ..Portal::new(app) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = portal.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (portal, from) = (serving.clone(), Connection { address: [127, 0, 0, 1].into(), tls: false });
            tokio::spawn(async move { portal.serve(stream, from, None).await });
        }
    });
    let (rest, mut held) = (resident(), Vec::new());
    for at in 0..64 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let path = if at % 2 == 0 { "/agent" } else { "/page" };
        // As many as are served at once; whoever opens hundreds has its connection ended before any is looked at.
        stream.write_all(&holding(path, if at < 4 { 200 } else { 16 })).await.unwrap();
        held.push(stream);
    }
    // Whoever asks now is answered behind all of it.
    for _ in 0..20 {
        let mut other = tokio::net::TcpStream::connect(address).await.unwrap();
        other.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut said = String::new();
        other.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 404"), "{said}");
        sleep(SHORT).await;
    }
    let above = resident().saturating_sub(rest);
    eprintln!("{above} KiB above rest");
    let [agents, pages] = [0, 1].map(|which| asked[which].load(std::sync::atomic::Ordering::Relaxed));
    assert!(agents >= 30 * 16 && pages >= 30, "the attack did not come to anything: {agents} and {pages}");
    assert!(above < 200 << 10, "{above} KiB above {rest} after {agents} agents and {pages} pages");
    drop(held);
}
