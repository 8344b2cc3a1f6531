//! Join tokens: what lets machines in.

use tenant_controlplane::id::{ClusterId, JoinTokenId, NodeId, NodePoolId, OrganizationId};
use time::OffsetDateTime;

use super::Actor;
use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// What lets machines join, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// Its id.
    pub id: JoinTokenId,
    /// The cluster to join.
    pub cluster: ClusterId,
    /// The pool to be in.
    pub pool: NodePoolId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// How many machines may use it.
    pub max_uses: u32,
    /// How many have.
    pub uses: u32,
    /// Since when it is worth nothing.
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// The node it was made for; `None`: joining makes one.
    pub node: Option<NodeId>,
}

/// A join token to be.
#[derive(Clone, Debug)]
pub struct NewJoinToken {
    /// Whose the cluster is.
    pub organization: OrganizationId,
    /// The cluster to join.
    pub cluster: ClusterId,
    /// The pool to be in; `None` is the pool `byo`, made at need.
    pub pool: Option<NodePoolId>,
    /// The node it is for; `None`: joining makes one.
    pub node: Option<NodeId>,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// How many machines may use it.
    pub max_uses: u32,
    /// Who makes it.
    pub actor: Actor,
}

impl TryFrom<table::join_token::Model> for JoinToken {
    type Error = StoreError;

    fn try_from(model: table::join_token::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: JoinTokenId::from_uuid(model.id),
            cluster: ClusterId::from_uuid(model.cluster),
            pool: NodePoolId::from_uuid(model.pool),
            organization: OrganizationId::from_uuid(model.organization),
            expires_at: codec::time("join token time", model.expires_at)?,
            max_uses: codec::count("join token uses", model.max_uses)?,
            uses: codec::count("join token uses", model.uses)?,
            revoked_at: codec::maybe_time("join token time", model.revoked_at)?,
            created_at: codec::time("join token time", model.created_at)?,
            node: model.node.map(NodeId::from_uuid),
        })
    }
}
