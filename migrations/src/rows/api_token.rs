//! Tokens of the REST API.

use tenant_controlplane::id::{ApiTokenId, OrganizationId, UserId};
use time::OffsetDateTime;

use super::Actor;
use super::organization::Role;
use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// A token of the REST API, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// Its id.
    pub id: ApiTokenId,
    /// The only organization it reaches.
    pub organization: OrganizationId,
    /// Whose it is.
    pub user: UserId,
    /// For people.
    pub name: String,
    /// The most it may do; its user's present role bounds it too.
    pub role: Role,
    /// When it ends; `None`: when it is revoked.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was last used, to five minutes.
    pub last_used_at: Option<OffsetDateTime>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// The networks it was used from of late, the newest last.
    pub addresses: Vec<String>,
}

/// A token to be.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// The organization it will reach.
    pub organization: OrganizationId,
    /// Whose it will be.
    pub user: UserId,
    /// For people.
    pub name: String,
    /// The most it may do.
    pub role: Role,
    /// When it ends; `None`: when it is revoked.
    pub expires_at: Option<OffsetDateTime>,
    /// Who makes it.
    pub actor: Actor,
}

impl TryFrom<table::api_token::Model> for ApiToken {
    type Error = StoreError;

    fn try_from(model: table::api_token::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: ApiTokenId::from_uuid(model.id),
            organization: OrganizationId::from_uuid(model.organization),
            user: UserId::from_uuid(model.user),
            name: model.name,
            role: codec::word("role", &model.role)?,
            expires_at: codec::maybe_time("token time", model.expires_at)?,
            last_used_at: codec::maybe_time("token time", model.last_used_at)?,
            created_at: codec::time("token time", model.created_at)?,
            addresses: codec::maybe_from_json("token addresses", model.addresses.as_deref())?.unwrap_or_default(),
        })
    }
}
