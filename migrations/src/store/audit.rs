//! Who did what: writing entries, reading them, and looking whether the log is as it was written.

use std::net::IpAddr;

use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::{AuditId, OrganizationId};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::Store;
use super::audit_chain::{self, Entry, PLATFORM};
use crate::codec;
use crate::db::Tx;
use crate::entity::{audit, audit_head, member, organization};
use crate::error::StoreError;
use crate::rows::audit::{AuditEntry, AuditFault, AuditFaultKind, AuditFilter, AuditReport, NewAudit, UserEvent};
use crate::rows::{self, Page};

/// Organizations in whose log something about a person is written: they may make as many as they like.
const MOST_ORGANIZATIONS: u64 = 20;
/// Entries read at once while the chain is looked at.
const BATCH: u64 = 1000;

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

    /// Reads the whole log and says where it is not as it was written. Entries may be written meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn verify(self) -> Result<AuditReport, StoreError> {
        let mut report = AuditReport::default();
        let heads = audit_head::Entity::find().order_by_asc(audit_head::Column::Chain).all(self.0.db()).await?;
        let summary: Vec<String> =
            heads.iter().map(|head| format!("{} {} {}", head.chain, head.sequence, head.hash)).collect();
        report.digest = crate::secret::hash(&summary.join("\n"));
        let mut chains: Vec<Uuid> = organization::Entity::find()
            .all(self.0.db())
            .await?
            .iter()
            .map(|row| row.id)
            .chain(heads.iter().map(|head| head.chain))
            .chain([PLATFORM])
            .collect();
        chains.sort_unstable();
        chains.dedup();
        for chain in chains {
            report.chains += 1;
            let (entries, fault) = self.look(chain).await?;
            report.entries += entries;
            report.faults.extend(fault);
        }
        Ok(report)
    }

    /// The number of a chain's entries and its first fault. A fault is looked at twice where old entries were dropped meanwhile.
    async fn look(self, chain: Uuid) -> Result<(u64, Option<AuditFault>), StoreError> {
        let begun = self.head(chain).await?.map(|head| head.first);
        let seen = self.walk(chain).await?;
        let moved = begun != self.head(chain).await?.map(|head| head.first);
        if seen.1.is_some() && moved { self.walk(chain).await } else { Ok(seen) }
    }

    async fn head(self, chain: Uuid) -> Result<Option<audit_head::Model>, StoreError> {
        Ok(audit_head::Entity::find_by_id(chain).one(self.0.db()).await?)
    }

    async fn walk(self, chain: Uuid) -> Result<(u64, Option<AuditFault>), StoreError> {
        let all = || audit::Entity::find().filter(audit_chain::of(chain));
        // The last before the head: the head only grows.
        let last = all().order_by_desc(audit::Column::Sequence).one(self.0.db()).await?;
        let Some(head) = self.head(chain).await? else {
            return Ok((0, Some(fault(chain, 1, None, AuditFaultKind::HeadRemoved))));
        };
        if !audit_chain::is_ours(self.0.mac_key()?, &head) {
            return Ok((0, Some(fault(chain, head.sequence, None, AuditFaultKind::HeadChanged))));
        }
        let mut walk = Walk { chain, next: head.first, hash: head.first_hash.clone(), entries: 0 };
        if let Some(first) = all().order_by_asc(audit::Column::Sequence).one(self.0.db()).await?
            && first.sequence < head.first
        {
            return Ok((0, Some(fault(chain, first.sequence, Some(first.id), AuditFaultKind::Added))));
        }
        loop {
            let part = all().filter(audit::Column::Sequence.gte(walk.next));
            let part = part.filter(audit::Column::Sequence.lte(head.sequence)).order_by_asc(audit::Column::Sequence);
            let part = part.limit(BATCH).all(self.0.db()).await?;
            if part.is_empty() {
                break;
            }
            if let Some(fault) = part.iter().find_map(|row| walk.step(row)) {
                return Ok((walk.entries, Some(fault)));
            }
        }
        Ok((walk.entries, walk.end(&head, last.as_ref())))
    }
}

/// A walk along a chain.
struct Walk {
    chain: Uuid,
    next: i64,
    hash: String,
    entries: u64,
}

impl Walk {
    fn step(&mut self, row: &audit::Model) -> Option<AuditFault> {
        let wrong = |kind| Some(fault(self.chain, row.sequence, Some(row.id), kind));
        if row.sequence != self.next {
            return wrong(AuditFaultKind::Removed);
        }
        if audit_chain::hash(&self.hash, row) != row.hash {
            return wrong(AuditFaultKind::Changed);
        }
        self.hash.clone_from(&row.hash);
        self.next += 1;
        self.entries += 1;
        None
    }

    /// Whether it came to the head, and nothing stood beyond it.
    fn end(&self, head: &audit_head::Model, last: Option<&audit::Model>) -> Option<AuditFault> {
        if self.next <= head.sequence {
            return Some(fault(self.chain, self.next, None, AuditFaultKind::NewestRemoved));
        }
        if self.hash != head.hash {
            return Some(fault(self.chain, head.sequence, None, AuditFaultKind::Changed));
        }
        let beyond = last.filter(|last| last.sequence > head.sequence)?;
        Some(fault(self.chain, beyond.sequence, Some(beyond.id), AuditFaultKind::Added))
    }
}

fn fault(chain: Uuid, sequence: i64, id: Option<Uuid>, kind: AuditFaultKind) -> AuditFault {
    let organization = Some(chain).filter(|chain| *chain != PLATFORM).map(OrganizationId::from_uuid);
    AuditFault { organization, sequence, id: id.map(AuditId::from_uuid), kind }
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
