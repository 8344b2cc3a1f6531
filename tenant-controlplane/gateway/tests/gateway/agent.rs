//! An agent for tests: the HTTP/2 server at the far end of a tunnel. What it does depends on the port asked for.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{Request, Response, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use crate::{
    pki::Leaf,
    world::{Client, World},
};

/// Sends back what it gets.
pub const ECHO: u16 = 7;
/// Takes a stream and never reads from it.
pub const STALL: u16 = 9;
/// Sends for ever.
pub const BULK: u16 = 19;
/// Resets as soon as the first byte comes.
pub const RESET: u16 = 1;
/// Refuses, with a reason.
pub const REFUSE: u16 = 2;
/// Never answers.
pub const SILENT: u16 = 3;
/// Reads to the end, then says how much it was, then ends.
pub const COUNT: u16 = 5;

/// Forwarded to a real TCP address.
pub const KUBELET: u16 = 10250;

/// What the agent has seen.
#[derive(Default)]
pub struct Seen {
    pub asked: Mutex<Vec<String>>,
    pub resets: Mutex<Vec<Reason>>,
    pub ended: AtomicUsize,
    /// Where [`KUBELET`] leads.
    pub kubelet: Mutex<Option<SocketAddr>>,
}

/// A running agent.
pub struct Agent {
    pub seen: Arc<Seen>,
    pub task: JoinHandle<()>,
}

impl Agent {
    /// Node `nod_1` of cluster A.
    pub async fn join(world: &World) -> Self {
        Self::join_as(world, "nod_1").await
    }

    /// A node of cluster A; returns when the gateway has it.
    pub async fn join_as(world: &World, node: &str) -> Self {
        let before = world.gateway.counters().opened(gateway::Kind::Tunnel);
        let agent = Self::start(world, world.link_a.node(crate::world::A, node), 500).await;
        crate::world::until(|| world.gateway.counters().opened(gateway::Kind::Tunnel) > before).await;
        world.written(node, true).await;
        agent
    }

    /// An agent with this certificate that allows so many streams.
    pub async fn start(world: &World, leaf: Leaf, streams: u32) -> Self {
        let tls = world.identity(node_protocol::alpn::TUNNEL, leaf).await.unwrap();
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(serve(tls, seen.clone(), streams));
        Self { seen, task }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(tls: Client, seen: Arc<Seen>, streams: u32) {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(256 * 1024)
        .initial_connection_window_size(1 << 30)
        .max_concurrent_streams(streams)
        .max_concurrent_reset_streams(1000);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(tls).await else { return };
    while let Some(Ok((request, reply))) = connection.accept().await {
        tokio::spawn(answer(request, reply, seen.clone()));
    }
}

async fn answer(request: Request<RecvStream>, mut reply: SendResponse<Bytes>, seen: Arc<Seen>) {
    let authority = request.uri().authority().unwrap().to_string();
    let port: u16 = authority.rsplit(':').next().unwrap().parse().unwrap();
    seen.asked.lock().unwrap().push(authority);
    let mut recv = request.into_body();
    match port {
        SILENT => std::future::pending().await,
        REFUSE => {
            let response = Response::builder()
                .status(StatusCode::FORBIDDEN)
                .header("x-pilothouse-reason", "port 2 is not served on node web-1");
            reply.send_response(response.body(()).unwrap(), true).unwrap();
        }
        _ => {
            let mut send = reply.send_response(Response::new(()), false).unwrap();
            match port {
                STALL => stall(&mut send, &seen).await,
                BULK => bulk(&mut send).await,
                RESET => {
                    let _ = recv.data().await;
                    send.send_reset(Reason::CONNECT_ERROR);
                }
                KUBELET => forward(recv, send, &seen).await,
                COUNT => count(&mut recv, &mut send, &seen).await,
                _ => echo(&mut recv, &mut send, &seen).await,
            }
        }
    }
}

async fn stall(send: &mut SendStream<Bytes>, seen: &Seen) {
    if let Ok(reason) = poll_fn(|cx| send.poll_reset(cx)).await {
        seen.resets.lock().unwrap().push(reason);
    }
}

async fn bulk(send: &mut SendStream<Bytes>) {
    let block = Bytes::from(vec![b'x'; 16 * 1024]);
    while push(send, block.clone()).await {}
}

async fn count(recv: &mut RecvStream, send: &mut SendStream<Bytes>, seen: &Seen) {
    let mut total = 0;
    while let Some(data) = recv.data().await {
        match data {
            Ok(data) => {
                total += data.len();
                recv.flow_control().release_capacity(data.len()).unwrap();
            }
            Err(error) => return seen.resets.lock().unwrap().push(error.reason().unwrap()),
        }
    }
    send.send_data(Bytes::from(total.to_string()), true).unwrap();
    seen.ended.fetch_add(1, SeqCst);
}

async fn echo(recv: &mut RecvStream, send: &mut SendStream<Bytes>, seen: &Seen) {
    while let Some(data) = recv.data().await {
        match data {
            Ok(data) => {
                let len = data.len();
                if !push(send, data).await {
                    return;
                }
                recv.flow_control().release_capacity(len).unwrap();
            }
            Err(error) => return seen.resets.lock().unwrap().extend(error.reason()),
        }
    }
    let _ = send.send_data(Bytes::new(), true);
    seen.ended.fetch_add(1, SeqCst);
}

async fn push(send: &mut SendStream<Bytes>, mut data: Bytes) -> bool {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let Some(Ok(granted)) = poll_fn(|cx| send.poll_capacity(cx)).await else { return false };
        if send.send_data(data.split_to(granted.min(data.len())), false).is_err() {
            return false;
        }
    }
    true
}

async fn forward(mut recv: RecvStream, mut send: SendStream<Bytes>, seen: &Seen) {
    let address = seen.kubelet.lock().unwrap().unwrap();
    let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
    let towards = async {
        while let Some(Ok(data)) = recv.data().await {
            if writer.write_all(&data).await.is_err() {
                break;
            }
            let _ = recv.flow_control().release_capacity(data.len());
        }
        let _ = writer.shutdown().await;
    };
    let back = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            if !push(&mut send, Bytes::copy_from_slice(&buffer[..read])).await {
                return;
            }
        }
        let _ = send.send_data(Bytes::new(), true);
    };
    tokio::join!(towards, back);
}
