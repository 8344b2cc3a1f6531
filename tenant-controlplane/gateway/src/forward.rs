//! Between gateways: a CONNECT for a node whose tunnel is at another gateway is sent there, and its bytes are spliced.
//!
//! Each gateway answers to a name of its own, `<id>.gateway.<domain>`, and only to gateways: their certificates are by the platform's
//! CA and say so. What comes this way is served by tunnels that are here, or refused: no request travels twice.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use node_protocol::{header::CLUSTER, server_name};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tracing::debug;

use crate::{
    GatewayState,
    accept::InboundConnection,
    conn::Conn,
    counters::{Kind, Refused},
    directory::RemoteLink,
    egress::{self, Connect, ESTABLISHED, Others},
    error::GatewayError,
    socket,
    splice::SpliceTimeouts,
    tls::{GatewayTls, Tls},
    tunnel::{
        refusal::Refusal,
        registry::Tenant,
        relay::{Front, gone},
        target::Target,
    },
};

/// What the other gateway may need beyond its own time for the node's answer.
const GRACE: Duration = Duration::from_secs(1);
/// Bytes of an answer's head, at most.
const MAX_HEAD: usize = 1024;
/// The end that has the tunnel decides how long a half-closed stream goes on.
const UNBOUNDED: SpliceTimeouts = SpliceTimeouts { with_server: Duration::MAX, with_client: Duration::MAX };

/// How gateways that share a directory reach each other.
pub struct Peers {
    /// This gateway's id, never used before: 32 hexadecimal digits.
    pub id: String,
    /// The authorities of all gateways' certificates.
    pub trust: Vec<CertificateDer<'static>>,
}

/// The same, ready for use.
pub(crate) struct PeerState {
    id: String,
    tls: GatewayTls,
}

impl PeerState {
    /// Makes the configurations.
    pub(crate) fn new(peers: Peers, tls: &Tls) -> Result<Self, GatewayError> {
        let mut roots = RootCertStore::empty();
        peers.trust.into_iter().try_for_each(|root| roots.add(root)).map_err(GatewayError::UseCertificate)?;
        let tls = tls.gateways(roots).map_err(|error| GatewayError::UsePeers(Box::new(error)))?;
        Ok(Self { id: peers.id, tls })
    }
}

/// `<id>.gateway.<domain>`: one CONNECT of another gateway, served by this one's own tunnels.
pub(crate) async fn serve(state: &Arc<GatewayState>, inbound: InboundConnection, id: &str) {
    let Some(peers) = state.peers.as_ref().filter(|peers| peers.id == id) else {
        return inbound.refuse(state, Refused::UnknownName).await;
    };
    let Some(mut stream) = inbound.finish(state, peers.tls.server.clone()).await else { return };
    let request = match egress::request(state, &mut stream).await {
        Ok(request) => request,
        Err(refusal) => return egress::answer(state, stream, &refusal).await,
    };
    let cluster = request.cluster.clone().unwrap_or_default();
    let label = cluster.rsplit('_').next().unwrap_or_default();
    let known = state.routes.cluster(label).await.ok().flatten().is_some_and(|route| route.cluster_id == cluster);
    if !known {
        return egress::answer(state, stream, &Refusal::new(404, format!("no cluster {cluster} here"))).await;
    }
    let tenant = state.registry.tenant(&cluster);
    stream.get_mut().0.bind(tenant.token.clone(), state.live(Kind::Forwarded));
    let connect = Connect { cluster: &cluster, tenant: &tenant, request, others: Others::NotAsked };
    egress::answer_connect(state, stream, connect).await;
}

/// The cluster's nodes that are linked to other gateways; none where there is one gateway.
pub(crate) async fn remote_links(state: &GatewayState, cluster: &str) -> Vec<RemoteLink> {
    let Some(peers) = &state.peers else { return Vec::new() };
    let mut links = state.routes.remote_links(cluster).await.unwrap_or_else(|error| {
        debug!(error = &error as &dyn std::error::Error, "lookup of links at other gateways failed");
        Vec::new()
    });
    links.retain(|link| link.gateway != peers.id);
    links
}

/// A stream through another gateway.
pub(crate) struct ForwardedStream {
    stream: TlsStream<Conn>,
    /// Bytes that came behind the answer.
    early: Bytes,
}

/// Asks the gateway that has the tunnel for a stream to `target`.
pub(crate) async fn open(
    state: &GatewayState,
    link: &RemoteLink,
    cluster: &str,
    tenant: &Tenant,
    target: &Target,
) -> Result<ForwardedStream, Refusal> {
    let silent = || Refusal::new(504, format!("node {} is linked to a gateway that does not answer", link.node.name));
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{CLUSTER}: {cluster}\r\n\r\n");
    let asked = async {
        let mut stream = dial(state, link, tenant).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.flush().await?;
        Ok(stream)
    };
    let asked: io::Result<_> = timeout(state.limits.connect_time, asked).await.unwrap_or_else(|late| Err(late.into()));
    let mut stream = asked.map_err(|error| failed(link.address, &error)).map_err(|()| silent())?;
    let answered = timeout(state.limits.connect_time + GRACE, read_answer(&mut stream)).await;
    let answered = answered.unwrap_or_else(|late| Err(late.into()));
    match answered.map_err(|error| failed(link.address, &error)).map_err(|()| silent())? {
        Answer { refusal: None, early } => Ok(ForwardedStream { stream, early }),
        Answer { refusal: Some(refusal), .. } => Err(refusal),
    }
}

fn failed(address: SocketAddr, error: &io::Error) {
    debug!(%error, %address, "the other gateway does not answer");
}

async fn dial(state: &GatewayState, link: &RemoteLink, tenant: &Tenant) -> io::Result<TlsStream<Conn>> {
    let peers = state.peers.as_ref().ok_or(io::ErrorKind::NotConnected)?;
    let name = ServerName::try_from(server_name::gateway(&link.gateway, &state.domain)).map_err(io::Error::other)?;
    let tcp = TcpStream::connect(link.address).await?;
    socket::tune(&tcp);
    let mut connection = Conn::new(tcp);
    connection.bind(tenant.token.clone(), state.live(Kind::Forwarded));
    TlsConnector::from(peers.tls.client.clone()).connect(name, connection).await
}

/// What the other gateway answered.
struct Answer {
    refusal: Option<Refusal>,
    early: Bytes,
}

async fn read_answer(stream: &mut TlsStream<Conn>) -> io::Result<Answer> {
    let mut bytes = BytesMut::with_capacity(256);
    loop {
        if let Some((refusal, end)) = parse_answer(&bytes)? {
            return Ok(Answer { refusal, early: bytes.split_off(end).freeze() });
        }
        if bytes.len() >= MAX_HEAD || stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The refusal, if it is one, and the length of the head; `None` while it is not complete.
fn parse_answer(bytes: &[u8]) -> io::Result<Option<(Option<Refusal>, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = response.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let refusal = match (response.code.unwrap_or_default(), response.reason.unwrap_or_default()) {
        (200, _) => None,
        (status @ 400..=599, reason) => Some(Refusal::new(status, reason)),
        (_, reason) => Some(Refusal::new(502, reason)),
    };
    Ok(Some((refusal, end)))
}

/// Moves bytes until both directions ended or one broke off: then both connections are dropped without close_notify, and the other
/// gateway's with a reset. What it sent last still reaches the front.
pub(crate) async fn splice(mut front: Front, opened: ForwardedStream) {
    if front.stream.write_all(ESTABLISHED).await.is_err() || front.stream.flush().await.is_err() {
        return;
    }
    let sockets = (front.stream.get_ref().0.socket(), opened.stream.get_ref().0.socket());
    let (reader, writer) = split(front.stream);
    let (there, back) = split(opened.stream);
    let (reader, there) = (io::Cursor::new(front.early).chain(reader), io::Cursor::new(opened.early).chain(there));
    let broken = tokio::select! {
        copied = crate::splice::splice((reader, writer), (there, back), UNBOUNDED, &|| {}) => copied.err(),
        _ = gone(&sockets.0) => Some(io::ErrorKind::ConnectionReset.into()),
        _ = gone(&sockets.1) => Some(io::ErrorKind::ConnectionReset.into()),
    };
    if let Some(error) = broken {
        debug!(%error, "forwarded stream aborted");
        socket::reset_on_drop(&sockets.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_stream_or_a_reason() {
        assert_eq!(parse_answer(b"HTTP/1.1 200 OK\r\n").unwrap(), None);
        assert_eq!(parse_answer(b"HTTP/1.1 200 OK\r\n\r\nbytes").unwrap(), Some((None, 19)));
        let refusal = Refusal::new(503, "node web-1 has no tunnel: agent not connected");
        let response = refusal.response();
        assert_eq!(parse_answer(response.as_bytes()).unwrap(), Some((Some(refusal), response.len())));
        let odd = parse_answer(b"HTTP/1.1 101 x\r\n\r\n").unwrap();
        assert_eq!(odd.unwrap().0.unwrap().status, 502);
        assert!(parse_answer(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}
