//! Organizations, projects, people and their credentials.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};
use tenant_controlplane::id::{ApiTokenId, OrganizationId, ProjectId, SessionId, UserId};
use tenant_controlplane::name::{OrganizationName, ProjectName};
use time::OffsetDateTime;

use super::Actor;
use crate::codec;
use crate::entity::identity as table;
use crate::error::StoreError;
use crate::secret::Secret;

/// What a person may do in an organization, in ascending order.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    EnumString,
    Display,
    IntoStaticStr,
    VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See.
    Viewer,
    /// See and change clusters.
    Editor,
    /// Also projects, members and tokens.
    Admin,
    /// Everything.
    Owner,
}

impl Role {
    /// Every role, in ascending order.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Who owns things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// Unique in the installation.
    pub name: OrganizationName,
    /// For people.
    pub display_name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A group of clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Unique in the organization.
    pub name: ProjectName,
    /// For people.
    pub display_name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A project to be.
#[derive(Clone, Debug)]
pub struct NewProject {
    /// Whose it will be.
    pub organization: OrganizationId,
    /// Unique in the organization.
    pub name: ProjectName,
    /// For people.
    pub display_name: String,
    /// Who makes it.
    pub actor: Actor,
}

/// A person.
#[derive(Clone, Debug)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// Unique, lower case.
    pub email: String,
    /// For people.
    pub display_name: String,
    /// A PHC string; `None`: cannot sign in with a password.
    pub password_hash: Option<Secret>,
    /// When they came.
    pub created_at: OffsetDateTime,
}

/// A person's place in an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where.
    pub organization: OrganizationId,
    /// Who.
    pub user: UserId,
    /// As what.
    pub role: Role,
}

/// The first person of an installation, to be.
#[derive(Clone, Debug)]
pub struct NewOwner {
    /// Compared without case.
    pub email: String,
    /// For people.
    pub display_name: String,
    /// A PHC string.
    pub password_hash: Secret,
}

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

/// A new password.
#[derive(Clone)]
pub struct NewPassword<'a> {
    /// Whose.
    pub user: UserId,
    /// A PHC string.
    pub hash: Secret,
    /// The hash of the session that goes on; all others end.
    pub keep: Option<&'a str>,
    /// Who changes it.
    pub actor: Actor,
    /// Where from.
    pub address: Option<IpAddr>,
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

impl TryFrom<table::organization::Model> for Organization {
    type Error = StoreError;

    fn try_from(model: table::organization::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: OrganizationId::from_uuid(model.id),
            name: codec::word("organization name", &model.name)?,
            display_name: model.display_name,
            created_at: codec::time("organization time", model.created_at)?,
        })
    }
}

impl TryFrom<table::project::Model> for Project {
    type Error = StoreError;

    fn try_from(model: table::project::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: ProjectId::from_uuid(model.id),
            organization: OrganizationId::from_uuid(model.organization),
            name: codec::word("project name", &model.name)?,
            display_name: model.display_name,
            created_at: codec::time("project time", model.created_at)?,
        })
    }
}

impl TryFrom<table::user::Model> for User {
    type Error = StoreError;

    fn try_from(model: table::user::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: UserId::from_uuid(model.id),
            email: model.email,
            display_name: model.display_name,
            password_hash: model.password_hash.map(Secret::from),
            created_at: codec::time("user time", model.created_at)?,
        })
    }
}

impl TryFrom<table::member::Model> for Member {
    type Error = StoreError;

    fn try_from(model: table::member::Model) -> Result<Self, StoreError> {
        Ok(Self {
            organization: OrganizationId::from_uuid(model.organization),
            user: UserId::from_uuid(model.user),
            role: codec::word("role", &model.role)?,
        })
    }
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
