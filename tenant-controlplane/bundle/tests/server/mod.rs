//! A small HTTP/1.1 file server on loopback: `HEAD`, `GET`, `Range: bytes=N-`, and connections that break on demand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    /// Path to (bytes after which the connection breaks, times it still does).
    cuts: HashMap<String, (usize, u32)>,
    /// Path to (bytes after which nothing more comes, times it is so).
    silences: HashMap<String, (usize, u32)>,
    /// Paths sent in small pieces.
    slow: Vec<String>,
    /// Path to the first byte asked for, one per GET.
    gets: HashMap<String, Vec<usize>>,
    /// Of any method.
    requests: usize,
}

/// Ends when dropped, with the runtime of the test.
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    fell_silent: Arc<tokio::sync::Notify>,
}

impl Server {
    pub async fn start(files: Vec<(String, Vec<u8>)>) -> Server {
        let state = Arc::new(Mutex::new(State { files: files.into_iter().collect(), ..State::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fell_silent = Arc::new(tokio::sync::Notify::new());
        let (shared, notify) = (state.clone(), fell_silent.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone(), notify.clone()));
            }
        });
        Server { address, state, fell_silent }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn replace(&self, path: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().files.insert(path.to_owned(), bytes);
    }

    pub fn remove(&self, path: &str) {
        self.state.lock().unwrap().files.remove(path);
    }

    /// The next `times` answers for this path break after `after` bytes.
    pub fn cut(&self, path: &str, after: usize, times: u32) {
        self.state.lock().unwrap().cuts.insert(path.to_owned(), (after, times));
    }

    /// The next `times` answers for this path end in silence after `after` bytes, the connection open.
    pub fn silence(&self, path: &str, after: usize, times: u32) {
        self.state.lock().unwrap().silences.insert(path.to_owned(), (after, times));
    }

    /// Until a connection fell silent.
    pub async fn silent(&self) {
        self.fell_silent.notified().await;
    }

    /// This path is sent in small pieces.
    pub fn slow(&self, path: &str) {
        self.state.lock().unwrap().slow.push(path.to_owned());
    }

    /// Requests so far, `HEAD` included.
    pub fn requests(&self) -> usize {
        self.state.lock().unwrap().requests
    }

    pub fn hits(&self, path: &str) -> usize {
        self.ranges(path).len()
    }

    pub fn ranges(&self, path: &str) -> Vec<usize> {
        self.state.lock().unwrap().gets.get(path).cloned().unwrap_or_default()
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>, fell_silent: Arc<tokio::sync::Notify>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(first)) = lines.next_line().await {
        let mut from = 0;
        while let Ok(Some(line)) = lines.next_line().await {
            if line.is_empty() {
                break;
            }
            if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
                from = range.trim_end_matches('-').parse().unwrap();
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (answer, end) = answer(&state, (method, path), from);
        let slow = state.lock().unwrap().slow.iter().any(|one| one == path);
        for piece in answer.chunks(if slow { 10_000 } else { usize::MAX }) {
            if write.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        match end {
            End::Open => {}
            End::Cut => return,
            End::Silence => {
                fell_silent.notify_one();
                // Until the other side gives up.
                let _ = lines.next_line().await;
                return;
            }
        }
    }
}

/// What happens to the connection after an answer.
enum End {
    Open,
    Cut,
    Silence,
}

/// The bytes to send, and what then.
fn answer(state: &Mutex<State>, (method, path): (&str, &str), from: usize) -> (Vec<u8>, End) {
    let mut state = state.lock().unwrap();
    state.requests += 1;
    if method == "GET" {
        state.gets.entry(path.to_owned()).or_default().push(from);
    }
    let Some(file) = state.files.get(path).cloned() else {
        return (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(), End::Open);
    };
    if from >= file.len() {
        return (b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n".to_vec(), End::Open);
    }
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    let mut body = &file[from..];
    let mut out = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    if method != "GET" {
        return (out, End::Open);
    }
    let mut end = End::Open;
    if let Some((after, times)) = state.cuts.get_mut(path).filter(|(_, times)| *times > 0) {
        *times -= 1;
        body = &body[..(*after).min(body.len())];
        end = End::Cut;
    }
    if let Some((after, times)) = state.silences.get_mut(path).filter(|(_, times)| *times > 0) {
        *times -= 1;
        body = &body[..(*after).min(body.len())];
        end = End::Silence;
    }
    out.extend_from_slice(body);
    (out, end)
}
