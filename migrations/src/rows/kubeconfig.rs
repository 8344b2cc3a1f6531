//! Kubeconfigs: what lets people in.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, VariantArray};
use tenant_controlplane::id::{ClusterId, KubeconfigId, OrganizationId};
use tenant_controlplane::name::ClusterName;
use tenant_controlplane::status::AccessRole;
use time::OffsetDateTime;

use super::Actor;
use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// How a kubeconfig proves who holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, EnumString, Display)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum KubeconfigKind {
    /// A certificate in the file.
    File,
    /// A program that fetches short-lived ones.
    Exec,
}

/// One issued kubeconfig, without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubeconfig {
    /// Its id.
    pub id: KubeconfigId,
    /// The cluster it opens.
    pub cluster: ClusterId,
    /// Whose the cluster is.
    pub organization: OrganizationId,
    /// For people.
    pub name: String,
    /// What it allows inside the cluster.
    pub role: AccessRole,
    /// How it proves who holds it.
    pub kind: KubeconfigKind,
    /// Serial number of its certificate, once issued.
    pub serial: Option<String>,
    /// When its certificate ends.
    pub expires_at: OffsetDateTime,
    /// Since when it should open nothing.
    pub revoked_at: Option<OffsetDateTime>,
    /// Who made it, as text of [`Actor`].
    pub created_by: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Whether the cluster was seen to accept it, with all that its role promises.
    pub bound: bool,
    /// The certificate of its own authority, PEM. None before it is signed, and for one from before there were such.
    pub authority: Option<String>,
    /// Since when every API server of the cluster was seen to refuse it, after it was revoked.
    pub refused_at: Option<OffsetDateTime>,
    /// What its holder may have left in the cluster, or what could not be cleaned up there, for people.
    pub left_behind: Option<String>,
}

/// How a kubeconfig stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum KubeconfigState {
    /// The cluster was not yet seen to accept it.
    Pending,
    /// It works.
    Active,
    /// It is revoked, and the cluster was not yet seen to refuse it.
    Revoking,
    /// It is revoked, and the cluster refuses it.
    Revoked,
    /// Its time is over.
    Expired,
}

impl Kubeconfig {
    /// How it stands at `now`.
    pub fn state(&self, now: OffsetDateTime) -> KubeconfigState {
        match (self.revoked_at, self.refused_at) {
            (_, Some(_)) => KubeconfigState::Revoked,
            _ if self.expires_at <= now => KubeconfigState::Expired,
            (Some(_), None) => KubeconfigState::Revoking,
            (None, None) if self.bound => KubeconfigState::Active,
            (None, None) => KubeconfigState::Pending,
        }
    }
}

/// The names under which people know a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPath {
    /// The organization's name.
    pub organization: String,
    /// The project's name.
    pub project: String,
    /// The cluster's own.
    pub cluster: ClusterName,
}

/// A kubeconfig to be.
#[derive(Clone, Debug)]
pub struct NewKubeconfig {
    /// Whose the cluster is.
    pub organization: OrganizationId,
    /// The cluster it will open.
    pub cluster: ClusterId,
    /// For people.
    pub name: String,
    /// What it allows inside the cluster.
    pub role: AccessRole,
    /// How it proves who holds it.
    pub kind: KubeconfigKind,
    /// When its certificate ends.
    pub expires_at: OffsetDateTime,
    /// Who makes it.
    pub actor: Actor,
}

/// Who gets a kubeconfig, as far as local machines care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Whether they hold the role admin, or more, in the cluster's organization.
    pub admin: bool,
    /// Whether local machines of this installation share the kernel of the platform host without isolation.
    pub shared_kernel: bool,
}

impl Recipient {
    /// An admin, who may have anything.
    pub const ADMIN: Self = Self { admin: true, shared_kernel: true };
}

impl TryFrom<table::kubeconfig::Model> for Kubeconfig {
    type Error = StoreError;

    fn try_from(model: table::kubeconfig::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: KubeconfigId::from_uuid(model.id),
            cluster: ClusterId::from_uuid(model.cluster),
            organization: OrganizationId::from_uuid(model.organization),
            name: model.name,
            role: codec::word("kubeconfig role", &model.role)?,
            kind: codec::word("kubeconfig kind", &model.kind)?,
            serial: model.serial,
            expires_at: codec::time("kubeconfig time", model.expires_at)?,
            revoked_at: codec::maybe_time("kubeconfig time", model.revoked_at)?,
            created_by: model.created_by,
            created_at: codec::time("kubeconfig time", model.created_at)?,
            bound: model.bound,
            authority: model.authority,
            refused_at: codec::maybe_time("kubeconfig time", model.refused_at)?,
            left_behind: model.left_behind,
        })
    }
}
