//! Agents: enrollment without a certificate, and joined nodes, whose ALPN says what the connection is for.

use std::{net::SocketAddr, sync::Arc};

use node_protocol::alpn;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::{
    GatewayState, Peer,
    accept::InboundConnection,
    api_splice,
    conn::TlsStream,
    counters::{Kind, Refused},
    directory::ClusterRoute,
    identity, tunnel,
};

/// A node that has proved who it is.
pub(crate) struct NodeIdentity {
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
pub(crate) async fn enrollment(state: &Arc<GatewayState>, inbound: InboundConnection) {
    let peer = Peer { address: inbound.address, node: None };
    let Some(mut stream) = inbound.finish(state, state.tls.enrollment()).await else { return };
    if stream.get_ref().1.alpn_protocol().is_none() {
        debug!(address = %peer.address, "enrollment without ALPN");
        return state.counters.refuse(Refused::Handshake);
    }
    let cancel = state.hard.child_token();
    let Some(permit) = state.permit(&state.enrollments, peer.address.ip(), &cancel) else { return };
    stream.get_mut().0.hold(permit);
    stream.get_mut().0.bind(cancel.clone(), state.live(Kind::Enrollment));
    let limit = state.limits.enrollment_time;
    tokio::spawn(async move {
        let _ = timeout(limit, cancel.cancelled()).await;
        cancel.cancel();
    });
    (state.link)(stream, peer);
}

/// `<label>.link.<domain>`: TLS with a client certificate, then by ALPN.
pub(crate) async fn serve(state: &Arc<GatewayState>, inbound: InboundConnection, cluster: ClusterRoute) {
    let address = inbound.address;
    let config = match state.tls.link(&cluster) {
        Ok(config) => config,
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, cluster = cluster.cluster_id, "link trust unusable");
            return inbound.refuse(state, Refused::NotReady).await;
        }
    };
    let Some(mut stream) = inbound.finish(state, config).await else { return };
    let (Some(purpose), Some(node_id)) = (purpose(&stream), peer_node(&stream)) else {
        debug!(%address, "link without a known ALPN");
        return state.counters.refuse(Refused::Handshake);
    };
    let identity = NodeIdentity { address, cluster, node_id };
    let token = state.registry.node_token(&identity.cluster.cluster_id, &identity.node_id);
    stream.get_mut().0.bind(token, state.live(purpose.kind()));
    if !matches!(purpose, Purpose::Api) {
        let tenant = state.registry.tenant(&identity.cluster.cluster_id);
        let Some(permit) = tenant.link_permit(&identity.node_id) else {
            warn!(node = identity.node_id, cluster = identity.cluster.cluster_id, "too many links of one node");
            return state.counters.refuse(Refused::Full);
        };
        stream.get_mut().0.hold(permit);
    }
    if matches!(purpose, Purpose::Grpc) {
        // Whoever answers calls knows more than that a node is not there, and says it.
        let node = Some((identity.cluster.cluster_id, identity.node_id));
        return (state.link)(stream, Peer { address, node });
    }
    match state.routes.node(&identity.cluster.cluster_id, &identity.node_id).await {
        Ok(Some(node)) if matches!(purpose, Purpose::Tunnel) => tunnel::serve(state, stream, identity, node).await,
        Ok(Some(_)) => api_splice::serve(state, stream, &identity).await,
        Ok(None) => {
            debug!(node = identity.node_id, "rejected a removed or unknown node");
            state.counters.refuse(Refused::Removed);
        }
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, node = identity.node_id, "node lookup failed");
            state.counters.refuse(Refused::NotReady);
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
