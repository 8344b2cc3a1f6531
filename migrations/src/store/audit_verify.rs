//! Whether the audit log is as it was written: every chain on its own, and the numbers over all of them.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::{AuditId, OrganizationId};
use uuid::Uuid;

use super::audit::Audit;
use super::audit_chain::{self, NUMBERS, PLATFORM};
use crate::entity::{audit, audit_head, organization};
use crate::error::StoreError;
use crate::rows::audit::{AuditCheckpoint, AuditFault, AuditFaultKind, AuditLog, AuditReport};

/// Entries read at once while the chain is looked at.
const BATCH: u64 = 1000;

impl Audit<'_> {
    /// Reads the whole log and says where it is not as it was written; with a checkpoint of an earlier reading also whether it goes on
    /// from there. Entries may be written meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn verify(self, known: Option<&AuditCheckpoint>) -> Result<AuditReport, StoreError> {
        let mut report = AuditReport::default();
        let numbers = match self.numbers().await? {
            Ok(head) => head,
            Err(fault) => {
                report.faults.push(fault);
                audit_chain::start(NUMBERS)
            }
        };
        let mut seen = Numbers::new(numbers.first, numbers.sequence);
        for chain in self.chains().await? {
            report.chains += 1;
            let (walk, fault) = self.look(chain).await?;
            report.entries += walk.entries;
            match fault {
                Some(fault) => report.faults.push(fault),
                None => walk.numbers.iter().for_each(|number| seen.mark(*number)),
            }
        }
        // What was dropped for its age meanwhile is not missing.
        let first = self.head(NUMBERS).await?.map_or(numbers.first, |head| head.first);
        report.faults.extend(seen.missing(first).map(|number| fault(NUMBERS, number, None, AuditFaultKind::Missing)));
        if let Some(known) = known {
            report.faults.extend(self.compare(known, first).await?);
        }
        report.checkpoint = self.checkpoint(numbers.sequence).await?;
        Ok(report)
    }

    /// Every organization, every head, and the platform.
    async fn chains(self) -> Result<Vec<Uuid>, StoreError> {
        let organizations = organization::Entity::find().select_only().column(organization::Column::Id);
        let heads = audit_head::Entity::find().select_only().column(audit_head::Column::Chain);
        let mut chains: Vec<Uuid> = organizations.into_tuple().all(self.0.db()).await?;
        chains.extend(heads.into_tuple::<Uuid>().all(self.0.db()).await?);
        chains.push(PLATFORM);
        chains.retain(|chain| *chain != NUMBERS);
        chains.sort_unstable();
        chains.dedup();
        Ok(chains)
    }

    /// The head of the numbers, or what is wrong with it.
    async fn numbers(self) -> Result<Result<audit_head::Model, AuditFault>, StoreError> {
        let Some(head) = self.head(NUMBERS).await? else {
            return Ok(Err(fault(NUMBERS, 0, None, AuditFaultKind::HeadRemoved)));
        };
        if audit_chain::is_ours(self.0.mac_key()?, &head) {
            return Ok(Ok(head));
        }
        Ok(Err(fault(NUMBERS, head.sequence, None, AuditFaultKind::HeadChanged)))
    }

    async fn compare(self, known: &AuditCheckpoint, first: i64) -> Result<Option<AuditFault>, StoreError> {
        // Dropped for its age: the numbers go on from there.
        if known.number < first {
            return Ok(None);
        }
        let found = self.checkpoint(known.number).await?;
        let same = found.as_ref() == Some(known);
        Ok((!same).then(|| fault(NUMBERS, known.number, None, AuditFaultKind::NotGoneOn)))
    }

    async fn checkpoint(self, number: i64) -> Result<Option<AuditCheckpoint>, StoreError> {
        let row = audit::Entity::find().filter(audit::Column::Number.eq(number)).filter(audit::Column::Number.gt(0));
        let row = row.one(self.0.db()).await?;
        Ok(row.map(|row| AuditCheckpoint { number: row.number, hash: row.hash }))
    }

    /// A walk along a chain, and its first fault. A fault is looked at twice where old entries were dropped meanwhile.
    async fn look(self, chain: Uuid) -> Result<(Walk, Option<AuditFault>), StoreError> {
        let begun = self.head(chain).await?.map(|head| head.first);
        let seen = self.walk(chain).await?;
        let moved = begun != self.head(chain).await?.map(|head| head.first);
        if seen.1.is_some() && moved { self.walk(chain).await } else { Ok(seen) }
    }

    async fn head(self, chain: Uuid) -> Result<Option<audit_head::Model>, StoreError> {
        Ok(audit_head::Entity::find_by_id(chain).one(self.0.db()).await?)
    }

    async fn walk(self, chain: Uuid) -> Result<(Walk, Option<AuditFault>), StoreError> {
        let all = || audit::Entity::find().filter(audit_chain::of(chain));
        let mut walk = Walk { chain, ..Walk::default() };
        // The last before the head: the head only grows.
        let last = all().order_by_desc(audit::Column::Sequence).one(self.0.db()).await?;
        let Some(head) = self.head(chain).await? else {
            return Ok((walk, Some(fault(chain, 1, None, AuditFaultKind::HeadRemoved))));
        };
        if !audit_chain::is_ours(self.0.mac_key()?, &head) {
            return Ok((walk, Some(fault(chain, head.sequence, None, AuditFaultKind::HeadChanged))));
        }
        (walk.next, walk.hash) = (head.first, head.first_hash.clone());
        if let Some(first) = all().order_by_asc(audit::Column::Sequence).one(self.0.db()).await?
            && first.sequence < head.first
        {
            return Ok((walk, Some(fault(chain, first.sequence, Some(first.id), AuditFaultKind::Added))));
        }
        loop {
            let part = all().filter(audit::Column::Sequence.gte(walk.next));
            let part = part.filter(audit::Column::Sequence.lte(head.sequence)).order_by_asc(audit::Column::Sequence);
            let part = part.limit(BATCH).all(self.0.db()).await?;
            if part.is_empty() {
                break;
            }
            if let Some(fault) = part.iter().find_map(|row| walk.step(row)) {
                return Ok((walk, Some(fault)));
            }
        }
        let fault = walk.end(&head, last.as_ref());
        Ok((walk, fault))
    }
}

/// Which numbers were found, from the first to the last that the log has.
struct Numbers {
    first: i64,
    found: Vec<bool>,
}

impl Numbers {
    fn new(first: i64, last: i64) -> Self {
        let count = usize::try_from(last - first + 1).unwrap_or_default();
        Self { first, found: vec![false; count] }
    }

    fn mark(&mut self, number: i64) {
        let place = usize::try_from(number - self.first).ok();
        if let Some(found) = place.and_then(|place| self.found.get_mut(place)) {
            *found = true;
        }
    }

    /// The first, from `first` on, that was not found.
    fn missing(&self, first: i64) -> Option<i64> {
        let numbers = (self.first..).zip(&self.found);
        numbers.filter(|(number, found)| *number >= first && !**found).map(|(number, _)| number).next()
    }
}

/// A walk along a chain.
#[derive(Default)]
struct Walk {
    chain: Uuid,
    next: i64,
    hash: String,
    entries: u64,
    numbers: Vec<i64>,
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
        self.numbers.push(row.number);
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
    let log = match chain {
        NUMBERS => AuditLog::All,
        PLATFORM => AuditLog::Platform,
        organization => AuditLog::Organization(OrganizationId::from_uuid(organization)),
    };
    AuditFault { log, sequence, id: id.map(AuditId::from_uuid), kind }
}
