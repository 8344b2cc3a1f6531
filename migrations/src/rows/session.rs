//! Sessions of browsers.

use std::net::IpAddr;

use tenant_controlplane::id::{SessionId, UserId};
use time::OffsetDateTime;

use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// A browser's session.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id, for lists.
    pub id: SessionId,
    /// A hash of the cookie's secret; the secret itself is nowhere.
    pub hash: String,
    /// Whose it is.
    pub user: UserId,
    /// When it began.
    pub created_at: OffsetDateTime,
    /// When it was last used, to five minutes.
    pub last_used_at: OffsetDateTime,
    /// When it ends, however much it is used.
    pub expires_at: OffsetDateTime,
    /// The network it was last used from.
    pub network: String,
    /// What the browser says it is.
    pub user_agent: String,
}

/// A browser's session to be.
#[derive(Clone)]
pub struct NewSession {
    /// A hash of the cookie's secret.
    pub hash: String,
    /// Whose it will be.
    pub user: UserId,
    /// When it ends, however much it is used.
    pub expires_at: OffsetDateTime,
    /// Where the person is, for the audit log.
    pub address: IpAddr,
    /// The network of that address, for lists.
    pub network: String,
    /// What the browser says it is.
    pub user_agent: String,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("user", &self.user)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl TryFrom<table::session::Model> for Session {
    type Error = StoreError;

    fn try_from(model: table::session::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: SessionId::from_uuid(model.id),
            hash: model.hash,
            user: UserId::from_uuid(model.user),
            created_at: codec::time("session time", model.created_at)?,
            last_used_at: codec::time("session time", model.last_used_at)?,
            expires_at: codec::time("session time", model.expires_at)?,
            network: model.address,
            user_agent: model.user_agent,
        })
    }
}
