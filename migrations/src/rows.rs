//! What goes in and comes out: plain structs with typed fields, one file per topic.
//!
//! Each row is made from its table's model by `TryFrom`; what cannot be read is [`StoreError::Corrupt`], never a panic or a guess.

pub(crate) mod api_token;
pub(crate) mod audit;
pub(crate) mod cluster;
pub(crate) mod gateway;
pub(crate) mod host;
pub(crate) mod join_token;
pub(crate) mod kubeconfig;
pub(crate) mod node;
pub(crate) mod operation;
pub(crate) mod organization;
pub(crate) mod pool;
pub(crate) mod quota;
pub(crate) mod session;
pub(crate) mod tombstone;
pub(crate) mod user;
pub(crate) mod work;

use std::fmt;

use tenant_controlplane::id::{ApiTokenId, NodeId, UserId};
use uuid::Uuid;

use crate::error::StoreError;

/// Who did something, for the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A person in a browser.
    User(UserId),
    /// A program with a person's token.
    Token {
        /// The token used.
        token: ApiTokenId,
        /// Whose it is.
        user: UserId,
    },
    /// A machine.
    Node(NodeId),
    /// The platform itself, or its owner on the machine.
    System,
    /// Somebody who has shown no valid credential.
    Anonymous,
}

impl Actor {
    /// The person behind it, if there is one.
    pub const fn user(&self) -> Option<UserId> {
        match self {
            Self::User(user) | Self::Token { user, .. } => Some(*user),
            Self::Node(_) | Self::System | Self::Anonymous => None,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => user.fmt(f),
            Self::Token { token, .. } => token.fmt(f),
            Self::Node(node) => node.fmt(f),
            Self::System => f.write_str("system"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

/// A part of a list, in the order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The last id of the part before; `None` for the first part.
    pub after: Option<Uuid>,
    /// The most rows to give.
    pub limit: u64,
}

impl Page {
    /// The first `limit` rows.
    pub const fn first(limit: u64) -> Self {
        Self { after: None, limit }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::first(100)
    }
}

/// Reads every model of a query's answer.
pub(crate) fn all<M, R>(models: Vec<M>) -> Result<Vec<R>, StoreError>
where
    R: TryFrom<M, Error = StoreError>,
{
    models.into_iter().map(R::try_from).collect()
}

/// Reads the model of a query's answer, if there is one.
pub(crate) fn maybe<M, R>(model: Option<M>) -> Result<Option<R>, StoreError>
where
    R: TryFrom<M, Error = StoreError>,
{
    model.map(R::try_from).transpose()
}

/// Reads the model of a query's answer; without one there is no such `what`.
pub(crate) fn one<M, R>(what: &'static str, model: Option<M>) -> Result<R, StoreError>
where
    R: TryFrom<M, Error = StoreError>,
{
    R::try_from(model.ok_or(StoreError::NotFound { what })?)
}
