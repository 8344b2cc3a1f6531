//! What is written beside a new spec, in its transaction: the audit entry and the operation people follow.

use uuid::Uuid;

use super::audit_chain::Entry;
use super::{idempotency, operations};
use crate::db::Tx;
use crate::error::StoreError;
use crate::rows::Actor;

/// An intent: who requests what for which row.
pub(super) struct Intent<'a> {
    /// Whose row it is.
    pub organization: Uuid,
    /// The cluster it belongs to.
    pub cluster: Option<Uuid>,
    /// `cluster.create`, `token.revoke`, …
    pub action: &'a str,
    /// The text id of the row.
    pub target: &'a str,
    /// For people; never a secret.
    pub detail: &'a str,
    /// Who wants it.
    pub actor: Actor,
}

impl Intent<'_> {
    /// Writes the audit entry, for what is done as soon as it is written, and what a request with an idempotency key has made.
    pub async fn record(&self, tx: &Tx) -> Result<(), StoreError> {
        tx.audit(Entry {
            organization: Some(self.organization),
            actor: self.actor.to_string(),
            action: self.action.to_owned(),
            target: self.target.to_owned(),
            detail: self.detail.to_owned(),
            address: None,
        });
        idempotency::made(tx, self.target).await
    }

    /// Writes the audit entry and opens an operation, for what takes a while.
    pub async fn open(&self, tx: &mut Tx) -> Result<Uuid, StoreError> {
        self.record(tx).await?;
        operations::open(tx, self).await
    }
}
