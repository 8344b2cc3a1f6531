//! Agents: enrolment without a certificate, and joined nodes, whose ALPN says what the connection is for.

use std::{net::SocketAddr, sync::Arc};

use node_protocol::alpn;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::{
    Door, Peer,
    accept::Visitor,
    api_splice,
    conn::TlsStream,
    counters::{Kind, Refused},
    directory::ClusterRoute,
    identity, tunnel,
};

/// A node that has proved who it is.
pub(crate) struct Joined {
    /// The TCP peer.
    pub(crate) address: SocketAddr,
    /// Its cluster.
    pub(crate) cluster: ClusterRoute,
    /// Its id.
    pub(crate) node_id: String,
}

/// What a joined node opened the connection for.
#[derive(Clone, Copy)]
enum Purpose {
    Grpc,
    Tunnel,
    Api,
}

/// `link.<domain>`: TLS, then the link sink without identity.
pub(crate) async fn enrolment(door: &Arc<Door>, visitor: Visitor) {
    let peer = Peer { address: visitor.address, node: None };
    let Some(mut stream) = visitor.finish(door, door.tls.enrolment()).await else { return };
    if stream.get_ref().1.alpn_protocol().is_none() {
        debug!(address = %peer.address, "enrollment without ALPN");
        return door.counters.refuse(Refused::Handshake);
    }
    let leash = door.hard.child_token();
    let Some(place) = door.place(&door.enrolments, peer.address.ip(), &leash) else { return };
    stream.get_mut().0.hold(place);
    stream.get_mut().0.bind(leash.clone(), door.live(Kind::Enrolment));
    let limit = door.limits.enrolment_time;
    tokio::spawn(async move {
        let _ = timeout(limit, leash.cancelled()).await;
        leash.cancel();
    });
    (door.link)(stream, peer);
}

/// `<label>.link.<domain>`: TLS with a client certificate, then by ALPN.
pub(crate) async fn serve(door: &Arc<Door>, visitor: Visitor, cluster: ClusterRoute) {
    let address = visitor.address;
    let config = match door.tls.link(&cluster) {
        Ok(config) => config,
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, cluster = cluster.cluster_id, "link trust unusable");
            return visitor.refuse(door, Refused::NotReady).await;
        }
    };
    let Some(mut stream) = visitor.finish(door, config).await else { return };
    let (Some(purpose), Some(node_id)) = (purpose(&stream), peer_node(&stream)) else {
        debug!(%address, "link without a known ALPN");
        return door.counters.refuse(Refused::Handshake);
    };
    let joined = Joined { address, cluster, node_id };
    let token = door.registry.node_token(&joined.cluster.cluster_id, &joined.node_id);
    stream.get_mut().0.bind(token, door.live(purpose.kind()));
    if !matches!(purpose, Purpose::Api) {
        let tenant = door.registry.tenant(&joined.cluster.cluster_id);
        let Some(place) = tenant.link_place(&joined.node_id) else {
            warn!(node = joined.node_id, cluster = joined.cluster.cluster_id, "too many links of one node");
            return door.counters.refuse(Refused::Full);
        };
        stream.get_mut().0.hold(place);
    }
    if matches!(purpose, Purpose::Grpc) {
        // Whoever answers calls knows more than that a node is not there, and says it.
        let node = Some((joined.cluster.cluster_id, joined.node_id));
        return (door.link)(stream, Peer { address, node });
    }
    match door.routes.node(&joined.cluster.cluster_id, &joined.node_id).await {
        Ok(Some(node)) if matches!(purpose, Purpose::Tunnel) => tunnel::serve(door, stream, joined, node).await,
        Ok(Some(_)) => api_splice::serve(door, stream, &joined).await,
        Ok(None) => {
            debug!(node = joined.node_id, "rejected a removed or unknown node");
            door.counters.refuse(Refused::Removed);
        }
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, node = joined.node_id, "node lookup failed");
            door.counters.refuse(Refused::NotReady);
        }
    }
}

fn purpose(stream: &TlsStream) -> Option<Purpose> {
    match stream.get_ref().1.alpn_protocol()? {
        alpn::GRPC => Some(Purpose::Grpc),
        alpn::TUNNEL => Some(Purpose::Tunnel),
        alpn::API => Some(Purpose::Api),
        _ => None,
    }
}

fn peer_node(stream: &TlsStream) -> Option<String> {
    identity::node_id(stream.get_ref().1.peer_certificates()?.first()?)
}

impl Purpose {
    fn kind(self) -> Kind {
        match self {
            Self::Grpc => Kind::Link,
            Self::Tunnel => Kind::Tunnel,
            Self::Api => Kind::Api,
        }
    }
}
