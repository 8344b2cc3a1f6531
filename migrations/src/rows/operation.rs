//! Operations with their named steps.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantArray};
use tenant_controlplane::id::{ClusterId, OperationId, OrganizationId};
use tenant_controlplane::status::Problem;
use time::OffsetDateTime;

use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, Display, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// No step has begun.
    Pending,
    /// Some step has.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly; the problem says why.
    Failed,
    /// Overtaken by something else, such as a deletion.
    Cancelled,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, Display, VariantArray)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Waiting,
    /// Begun.
    Running,
    /// Ended well.
    Done,
    /// Ended badly, perhaps to be tried again.
    Failed,
}

/// Something that takes a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What is done: `cluster.create`, `node_pool.delete`, …
    pub kind: String,
    /// The text id of what it is done to.
    pub target: String,
    /// The cluster it belongs to; the cluster itself may be gone.
    pub cluster: Option<ClusterId>,
    /// Whose it is.
    pub organization: OrganizationId,
    /// How far it is.
    pub state: OperationState,
    /// Its steps in order.
    pub steps: Vec<Step>,
    /// Why it failed.
    pub problem: Option<Problem>,
    /// Who asked, as text of [`super::Actor`].
    pub actor: String,
    /// Counts changes of this row.
    pub version: i64,
    /// When it was requested.
    pub created_at: OffsetDateTime,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
}

impl Operation {
    /// Whether it has ended, in whatever way.
    pub const fn is_finished(&self) -> bool {
        self.finished_at.is_some()
    }
}

/// A named part of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What tells it from the others.
    pub key: String,
    /// For people.
    pub title: String,
    /// How far it is.
    pub state: StepState,
    /// Which try this is, from 1; 0 while waiting.
    pub attempt: u32,
    /// When its first try began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// For people; the last failure stays until the step is done.
    pub message: String,
}

/// An update of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepUpdate<'a> {
    /// Which step; a new key adds one at the end.
    pub key: &'a str,
    /// For people.
    pub title: &'a str,
    /// How far it is.
    pub state: StepState,
    /// For people; empty keeps the last failure while the step is tried again.
    pub message: &'a str,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Well.
    Succeeded,
    /// Badly.
    Failed(Problem),
    /// Overtaken.
    Cancelled,
}

impl TryFrom<table::operation::Model> for Operation {
    type Error = StoreError;

    fn try_from(model: table::operation::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: OperationId::from_uuid(model.id),
            kind: model.kind,
            target: model.target,
            cluster: model.cluster.map(ClusterId::from_uuid),
            organization: OrganizationId::from_uuid(model.organization),
            state: codec::word("operation state", &model.state)?,
            steps: codec::from_json("operation steps", &model.steps)?,
            problem: codec::maybe_from_json("operation problem", model.problem.as_deref())?,
            actor: model.actor,
            version: model.version,
            created_at: codec::time("operation time", model.created_at)?,
            finished_at: codec::maybe_time("operation time", model.finished_at)?,
        })
    }
}
