//! Work that is due: an id to look at again, and who is looking.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantArray};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// What an id of the work table is an id of.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, EnumString, Display, VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// A cluster.
    Cluster,
    /// A node pool.
    NodePool,
    /// A node.
    Node,
}

impl WorkKind {
    /// Every kind.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;
}

/// A lease on one id: until it ends, nobody else looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// What it is.
    pub kind: WorkKind,
    /// Which one.
    pub id: Uuid,
    /// Since when it was due.
    pub due_at: OffsetDateTime,
    /// When the lease ends unless it is renewed.
    pub lease_until: OffsetDateTime,
    /// Who holds it.
    pub lease_owner: String,
    /// How often it failed since it last went well.
    pub failures: u32,
    /// Counts leases on this id, so that a lost one is told from the present one.
    pub fence: i64,
    /// Counts requests for this id, so that one that came meanwhile is not lost.
    pub(crate) wanted: i64,
    /// The trace contexts of the requests that wait for this, the oldest first, with a space between them.
    pub traceparent: Option<String>,
}

/// How much of a kind waits to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Of what kind.
    pub kind: WorkKind,
    /// How many are due.
    pub due: u64,
    /// Since when the oldest of them is.
    pub oldest: Option<OffsetDateTime>,
}

/// What came of looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Nothing is left to do until somebody makes it due again.
    Done,
    /// What was requested has ended, well or not; look again after this time.
    Ended(Duration),
    /// Look again after this time; not a failure.
    Later(Duration),
    /// Nobody looked; look after this time. What failed before still counts.
    Postponed(Duration),
    /// It failed; look again after this time.
    Failed {
        /// How long to leave it alone.
        backoff: Duration,
    },
}

impl TryFrom<table::work::Model> for Work {
    type Error = StoreError;

    fn try_from(model: table::work::Model) -> Result<Self, StoreError> {
        Ok(Self {
            kind: codec::word("kind of work", &model.kind)?,
            id: model.id,
            due_at: codec::time("work time", model.due_at)?,
            lease_until: codec::time("work time", model.lease_until.unwrap_or_default())?,
            lease_owner: model.lease_owner,
            failures: codec::count("work failures", model.failures)?,
            fence: model.fence,
            wanted: model.wanted,
            traceparent: model.traceparent,
        })
    }
}
