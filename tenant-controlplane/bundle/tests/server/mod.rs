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
    /// Path to the first byte asked for, one per GET.
    gets: HashMap<String, Vec<usize>>,
}

/// Ends when dropped, with the runtime of the test.
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub async fn start(files: Vec<(String, Vec<u8>)>) -> Server {
        let state = Arc::new(Mutex::new(State { files: files.into_iter().collect(), ..State::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Server { address, state }
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

    pub fn hits(&self, path: &str) -> usize {
        self.ranges(path).len()
    }

    pub fn ranges(&self, path: &str) -> Vec<usize> {
        self.state.lock().unwrap().gets.get(path).cloned().unwrap_or_default()
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
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
        let (answer, whole) = answer(&state, (method, path), from);
        if write.write_all(&answer).await.is_err() || !whole {
            return;
        }
    }
}

/// The bytes to send, and whether the connection lives on.
fn answer(state: &Mutex<State>, (method, path): (&str, &str), from: usize) -> (Vec<u8>, bool) {
    let mut state = state.lock().unwrap();
    if method == "GET" {
        state.gets.entry(path.to_owned()).or_default().push(from);
    }
    let Some(file) = state.files.get(path).cloned() else {
        return (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(), true);
    };
    if from >= file.len() {
        return (b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n".to_vec(), true);
    }
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    let mut body = &file[from..];
    let mut out = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    if method != "GET" {
        return (out, true);
    }
    let mut whole = true;
    if let Some((after, times)) = state.cuts.get_mut(path).filter(|(_, times)| *times > 0) {
        *times -= 1;
        body = &body[..(*after).min(body.len())];
        whole = false;
    }
    out.extend_from_slice(body);
    (out, whole)
}
