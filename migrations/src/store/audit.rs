//! Who did what.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::OrganizationId;
use uuid::Uuid;

use super::Store;
use crate::codec;
use crate::entity::ledger::audit;
use crate::error::StoreError;
use crate::rows::operation::{AuditEntry, NewAudit};
use crate::rows::{self, Page};

/// The audit log; see [`Store::audit`].
#[derive(Clone, Copy)]
pub struct Audit<'a>(pub(super) &'a Store);

impl Audit<'_> {
    /// Writes an entry for what changes no row of the store, such as a sign-in. Everything else writes its own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn record(self, new: NewAudit<'_>) -> Result<(), StoreError> {
        let tx = self.0.begin().await?;
        tx.add(audit::Model {
            id: Uuid::now_v7(),
            organization: new.organization.map(OrganizationId::uuid),
            actor: new.actor.to_string(),
            action: new.action.to_owned(),
            target: new.target.to_owned(),
            detail: new.detail.to_owned(),
            created_at: codec::millis(codec::now()),
        })
        .await?;
        tx.commit().await
    }

    /// An organization's entries, the newest first; [`Page::after`] goes on with older ones.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list(self, organization: OrganizationId, page: Page) -> Result<Vec<AuditEntry>, StoreError> {
        let mut query = audit::Entity::find().filter(audit::Column::Organization.eq(organization.uuid()));
        if let Some(after) = page.after {
            query = query.filter(audit::Column::Id.lt(after));
        }
        rows::all(query.order_by_desc(audit::Column::Id).limit(page.limit).all(self.0.db()).await?)
    }
}
