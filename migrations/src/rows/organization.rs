//! Organizations, their projects, and who is in them as what.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantArray};
use tenant_controlplane::id::{OrganizationId, ProjectId, UserId};
use tenant_controlplane::name::{OrganizationName, ProjectName};
use time::OffsetDateTime;

use super::Actor;
use crate::codec;
use crate::entity as table;
use crate::error::StoreError;

/// What a person may do in an organization, in ascending order.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    EnumString,
    Display,
    IntoStaticStr,
    VariantArray,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See.
    Viewer,
    /// See and change clusters.
    Editor,
    /// Also projects, members and tokens.
    Admin,
    /// Everything.
    Owner,
}

impl Role {
    /// Every role, in ascending order.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Who owns things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// Unique in the installation.
    pub name: OrganizationName,
    /// For people.
    pub display_name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A group of clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Unique in the organization.
    pub name: ProjectName,
    /// For people.
    pub display_name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A project to be.
#[derive(Clone, Debug)]
pub struct NewProject {
    /// Whose it will be.
    pub organization: OrganizationId,
    /// Unique in the organization.
    pub name: ProjectName,
    /// For people.
    pub display_name: String,
    /// Who makes it.
    pub actor: Actor,
}

/// A person's place in an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where.
    pub organization: OrganizationId,
    /// Who.
    pub user: UserId,
    /// As what.
    pub role: Role,
}

impl TryFrom<table::organization::Model> for Organization {
    type Error = StoreError;

    fn try_from(model: table::organization::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: OrganizationId::from_uuid(model.id),
            name: codec::word("organization name", &model.name)?,
            display_name: model.display_name,
            created_at: codec::time("organization time", model.created_at)?,
        })
    }
}

impl TryFrom<table::project::Model> for Project {
    type Error = StoreError;

    fn try_from(model: table::project::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: ProjectId::from_uuid(model.id),
            organization: OrganizationId::from_uuid(model.organization),
            name: codec::word("project name", &model.name)?,
            display_name: model.display_name,
            created_at: codec::time("project time", model.created_at)?,
        })
    }
}

impl TryFrom<table::member::Model> for Member {
    type Error = StoreError;

    fn try_from(model: table::member::Model) -> Result<Self, StoreError> {
        Ok(Self {
            organization: OrganizationId::from_uuid(model.organization),
            user: UserId::from_uuid(model.user),
            role: codec::word("role", &model.role)?,
        })
    }
}
