//! Who did what: writing entries and reading them.

use std::net::IpAddr;

use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::OrganizationId;
use time::{Duration, OffsetDateTime};

use super::Store;
use super::audit_chain::{self, Entry, PLATFORM};
use crate::codec;
use crate::db::Tx;
use crate::entity::{audit, member};
use crate::error::StoreError;
use crate::rows::audit::{AuditEntry, AuditFilter, NewAudit, UserEvent};
use crate::rows::{self, Page};

/// Organizations in whose log something about a person is written: they may make as many as they like.
const MOST_ORGANIZATIONS: u64 = 20;

/// The audit log; see [`Store::audit`].
#[derive(Clone, Copy)]
pub struct Audit<'a>(pub(super) &'a Store);

impl Audit<'_> {
    /// Writes an entry for what changes no row of the store, such as a refused request. Everything else writes its own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn record(self, new: NewAudit<'_>) -> Result<(), StoreError> {
        self.record_from(new, None).await
    }

    /// [`Audit::record`], with the address that it came from.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn record_from(self, new: NewAudit<'_>, address: Option<IpAddr>) -> Result<(), StoreError> {
        let tx = self.0.begin().await?;
        tx.audit(entry(new, address));
        tx.commit().await
    }

    /// [`Audit::record`], unless the same actor did the same to the same target within `every`: what can be repeated at will must not
    /// fill the log. Two at once may both be written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn record_rarely(self, new: NewAudit<'_>, every: Duration) -> Result<(), StoreError> {
        let same = audit::Entity::find().filter(audit::Column::Target.eq(new.target));
        let same = same.filter(audit::Column::Action.eq(new.action));
        let same = same.filter(audit::Column::Actor.eq(new.actor.to_string()));
        let late = audit::Column::CreatedAt.gt(codec::millis(codec::now() - every));
        match same.filter(late).limit(1).one(self.0.db()).await? {
            Some(_) => Ok(()),
            None => self.record(new).await,
        }
    }

    /// Writes something about a person in the log of each of their organizations; in the platform's, where they have none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn record_user(self, event: UserEvent<'_>) -> Result<(), StoreError> {
        let tx = self.0.begin().await?;
        about_user(&tx, event).await?;
        tx.commit().await
    }

    /// An organization's entries, the newest first; [`Page::after`] goes on with older ones.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list(self, organization: OrganizationId, page: Page) -> Result<Vec<AuditEntry>, StoreError> {
        self.find(Some(organization), &AuditFilter::default(), page).await
    }

    /// The entries of an organization, or of the platform itself, that fit; the newest first. [`Page::after`] goes on with older ones.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn find(
        self,
        organization: Option<OrganizationId>,
        filter: &AuditFilter,
        page: Page,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let chain = organization.map_or(PLATFORM, OrganizationId::uuid);
        let mut query = audit::Entity::find().filter(audit_chain::of(chain)).filter(wanted(filter));
        if let Some(after) = page.after {
            let last = audit::Entity::find_by_id(after).filter(audit_chain::of(chain)).one(self.0.db()).await?;
            let Some(last) = last else { return Ok(Vec::new()) };
            query = query.filter(audit::Column::Sequence.lt(last.sequence));
        }
        rows::all(query.order_by_desc(audit::Column::Sequence).limit(page.limit).all(self.0.db()).await?)
    }
}

fn wanted(filter: &AuditFilter) -> Condition {
    let millis = |time: OffsetDateTime| codec::millis(time);
    let action = filter.action.as_ref().map(|action| {
        let noun = audit::Column::Action.starts_with(format!("{action}."));
        Condition::any().add(audit::Column::Action.eq(action.as_str())).add(noun)
    });
    Condition::all()
        .add_option(filter.actor.as_ref().map(|actor| audit::Column::Actor.eq(actor.as_str())))
        .add_option(action)
        .add_option(filter.target.as_ref().map(|target| audit::Column::Target.eq(target.as_str())))
        .add_option(filter.since.map(|since| audit::Column::CreatedAt.gte(millis(since))))
        .add_option(filter.until.map(|until| audit::Column::CreatedAt.lt(millis(until))))
}

pub(super) fn entry(new: NewAudit<'_>, address: Option<IpAddr>) -> Entry {
    Entry {
        organization: new.organization.map(OrganizationId::uuid),
        actor: new.actor.to_string(),
        action: new.action.to_owned(),
        target: new.target.to_owned(),
        detail: new.detail.to_owned(),
        address: address.map(|address| address.to_canonical().to_string()),
    }
}

/// Puts something about a person into the transaction: an entry for each of their organizations, or one for the platform.
pub(super) async fn about_user(tx: &Tx, event: UserEvent<'_>) -> Result<(), StoreError> {
    let places = member::Entity::find().filter(member::Column::User.eq(event.user.uuid()));
    let places = places.order_by_asc(member::Column::Organization).limit(MOST_ORGANIZATIONS).all(tx).await?;
    let mut chains: Vec<_> = places.iter().map(|place| Some(OrganizationId::from_uuid(place.organization))).collect();
    if chains.is_empty() {
        chains.push(None);
    }
    let target = event.user.to_string();
    for organization in chains {
        let UserEvent { actor, action, detail, address, .. } = event;
        tx.audit(entry(NewAudit { organization, actor, action, target: &target, detail }, address));
    }
    Ok(())
}
