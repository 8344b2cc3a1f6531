//! People and their passwords.

use std::net::IpAddr;

use tenant_controlplane::id::UserId;
use time::OffsetDateTime;

use super::Actor;
use crate::codec;
use crate::entity as table;
use crate::error::StoreError;
use crate::secret::Secret;

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
