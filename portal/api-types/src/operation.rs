//! Operations: work that takes a while, with named steps.

use crate::{Links, Problem};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// An operation. `failed` is final; retries happen inside `running`, and the last error stays visible meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// `op_…`
    pub id: String,
    /// Always `operation`.
    pub object: String,
    /// For example `cluster.create`.
    pub kind: String,
    /// ID of the target.
    pub target: String,
    /// `cls_…` it is about, if any.
    pub cluster_id: Option<String>,
    /// `org_…` of the owner.
    pub organization_id: String,
    /// `pending`, `running`, `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// Completed steps in percent, 0 to 100.
    pub percent: u8,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
    /// Who requested it.
    pub actor: String,
    /// When it was requested.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it finished.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// The resource's addresses.
    pub links: Links,
}

impl Operation {
    /// The states there are.
    pub const STATES: [&'static str; 5] = ["pending", "running", "succeeded", "failed", "cancelled"];

    /// Whether it has ended, well or badly.
    pub fn is_finished(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "failed" | "cancelled")
    }
}

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// Stable word for programs.
    pub key: String,
    /// Title for people.
    pub title: String,
    /// `waiting`, `running`, `done` or `failed`.
    pub state: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When it first started.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When it finished.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// Duration so far, in milliseconds.
    pub duration_milliseconds: Option<u64>,
    /// What the step is waiting for, or the error.
    pub message: String,
}

impl Step {
    /// The states there are.
    pub const STATES: [&'static str; 4] = ["waiting", "running", "done", "failed"];
}
