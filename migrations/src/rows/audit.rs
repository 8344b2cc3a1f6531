//! The audit log.

use std::net::IpAddr;

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
    /// SHA-256 over all heads, in hexadecimal. Two readings of an unchanged log give the same: kept elsewhere, it shows that the whole
    /// database was put back to an earlier state.
    pub digest: String,
}

/// Where a chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFault {
    /// Whose chain; `None`: the platform's.
    pub organization: Option<OrganizationId>,
    /// The place in the chain, from 1 on.
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
