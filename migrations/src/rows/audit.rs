//! The audit log.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use tenant_controlplane::id::{AuditId, OrganizationId, UserId};
use time::OffsetDateTime;

use super::Actor;
use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its id.
    pub id: AuditId,
    /// Whose matter it is; `None` for the installation's.
    pub organization: Option<OrganizationId>,
    /// Who, as text of [`Actor`].
    pub actor: String,
    /// What: `cluster.create`, `token.revoke`, …
    pub action: String,
    /// The text id of what it was done to.
    pub target: String,
    /// For people; never a secret.
    pub detail: String,
    /// The address it came from, where that is known.
    pub address: Option<String>,
    /// When.
    pub created_at: OffsetDateTime,
}

/// An entry of the audit log to be.
#[derive(Clone, Copy, Debug)]
pub struct NewAudit<'a> {
    /// Whose matter it is; `None` for the installation's.
    pub organization: Option<OrganizationId>,
    /// Who.
    pub actor: Actor,
    /// What.
    pub action: &'a str,
    /// The text id of what it was done to.
    pub target: &'a str,
    /// For people; never a secret.
    pub detail: &'a str,
}

/// Something about a person, to be written in the audit log of each of their organizations.
#[derive(Clone, Copy, Debug)]
pub struct UserEvent<'a> {
    /// Whom it concerns.
    pub user: UserId,
    /// Who did it.
    pub actor: Actor,
    /// What: `user.sign_in`, …
    pub action: &'a str,
    /// For people; never a secret.
    pub detail: &'a str,
    /// Where it came from.
    pub address: Option<IpAddr>,
}

/// Which entries are wanted; what is `None` is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// The text of an [`Actor`].
    pub actor: Option<String>,
    /// A whole action (`cluster.create`), or its first word (`cluster`).
    pub action: Option<String>,
    /// The text id of what something was done to.
    pub target: Option<String>,
    /// Not before.
    pub since: Option<OffsetDateTime>,
    /// Before.
    pub until: Option<OffsetDateTime>,
}

/// How an audit log was found to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Chains looked at: one per organization, and the platform's.
    pub chains: u64,
    /// Entries looked at.
    pub entries: u64,
    /// The first fault of each chain that has one.
    pub faults: Vec<AuditFault>,
    /// The newest entry. Kept elsewhere, it shows later that the whole database was put back to an earlier state.
    pub checkpoint: Option<AuditCheckpoint>,
}

/// An entry of the log, by its number over all chains and its hash; as text `NUMBER:HASH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditCheckpoint {
    /// From 1 on.
    pub number: i64,
    /// 64 hexadecimal digits.
    pub hash: String,
}

impl fmt::Display for AuditCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

/// The text is no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a checkpoint is a number, a colon and 64 hexadecimal digits, as `pilothouse admin audit verify` prints it")]
pub struct NotACheckpoint;

impl FromStr for AuditCheckpoint {
    type Err = NotACheckpoint;

    fn from_str(text: &str) -> Result<Self, NotACheckpoint> {
        let (number, hash) = text.split_once(':').ok_or(NotACheckpoint)?;
        let number = number.parse().ok().filter(|number| *number > 0).ok_or(NotACheckpoint)?;
        let is_hash = hash.len() == 64 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_hash.then(|| Self { number, hash: hash.to_owned() }).ok_or(NotACheckpoint)
    }
}

/// Whose entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditLog {
    /// An organization's.
    Organization(OrganizationId),
    /// The installation's own.
    Platform,
    /// All of them: what is only seen over all.
    All,
}

/// Where a chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFault {
    /// Where.
    pub log: AuditLog,
    /// The place in the chain, from 1 on; in [`AuditLog::All`] the number.
    pub sequence: i64,
    /// The entry that is there now, or the first after the gap.
    pub id: Option<AuditId>,
    /// What is wrong.
    pub kind: AuditFaultKind,
}

/// What is wrong with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditFaultKind {
    /// The entry is not as it was written, or another stands in its place.
    Changed,
    /// One or more entries were removed before this one.
    Removed,
    /// The newest entries were removed.
    NewestRemoved,
    /// An entry was added that the platform did not write.
    Added,
    /// The record of the chain's ends is not as the platform wrote it.
    HeadChanged,
    /// The record of the chain's ends was removed.
    HeadRemoved,
    /// No log that holds has the entry: one was put back to an earlier copy, removed whole, or is at fault itself.
    Missing,
    /// The entry of an earlier checkpoint is not there.
    NotGoneOn,
}

impl AuditFaultKind {
    /// For people: what was seen.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Changed => "this entry was changed",
            Self::Removed => "entries before this one were removed",
            Self::NewestRemoved => "the newest entries, from this place on, were removed",
            Self::Added => "this entry was not written by the platform",
            Self::HeadChanged => "the record of the chain's ends was changed",
            Self::HeadRemoved => "the record of the chain's ends was removed",
            Self::Missing => "this entry, and perhaps others, is in none of the logs that hold",
            Self::NotGoneOn => {
                "this entry of the checkpoint is not there: the database was put back to an earlier state"
            }
        }
    }
}

impl TryFrom<table::audit::Model> for AuditEntry {
    type Error = StoreError;

    fn try_from(model: table::audit::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: AuditId::from_uuid(model.id),
            organization: model.organization.map(OrganizationId::from_uuid),
            actor: model.actor,
            action: model.action,
            target: model.target,
            detail: model.detail,
            address: model.address,
            created_at: codec::time("audit time", model.created_at)?,
        })
    }
}
