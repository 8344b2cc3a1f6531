//! People and what owns things: users, organizations, projects.

use crate::Links;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A person. Passwords never leave the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// `usr_…`
    pub id: String,
    /// Always `user`.
    pub object: String,
    /// Email address for sign-in.
    pub email: String,
    /// Display name.
    pub display_name: String,
    /// Creation time of the account.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// An organization: it has members and owns projects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Organization {
    /// `org_…`
    pub id: String,
    /// Always `organization`.
    pub object: String,
    /// DNS label, unique.
    pub name: String,
    /// Display name.
    pub display_name: String,
    /// The caller's role in it: `owner`, `admin`, `editor` or `viewer`.
    pub role: String,
    /// Creation time.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Version of this representation, for `If-Match`.
    pub etag: String,
    /// The resource's addresses.
    pub links: Links,
}

/// Create an organization; the caller becomes its owner.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOrganization {
    /// DNS label of at most 40 characters.
    pub name: String,
    /// Display name; default: the name.
    #[serde(default)]
    pub display_name: Option<String>,
}

/// A project: it groups clusters inside an organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Project {
    /// `prj_…`
    pub id: String,
    /// Always `project`.
    pub object: String,
    /// `org_…` of the owner.
    pub organization_id: String,
    /// DNS label, unique in the organization.
    pub name: String,
    /// Display name.
    pub display_name: String,
    /// Creation time.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Version of this representation, for `If-Match`.
    pub etag: String,
    /// The resource's addresses.
    pub links: Links,
}

/// Create a project.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProject {
    /// DNS label of at most 40 characters.
    pub name: String,
    /// Display name; default: the name.
    #[serde(default)]
    pub display_name: Option<String>,
}

/// One organization of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Membership {
    /// `org_…`
    pub organization_id: String,
    /// Its name.
    pub organization_name: String,
    /// `owner`, `admin`, `editor` or `viewer`; never more than the token allows.
    pub role: String,
}

/// The caller.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The user, also when one of their tokens is used.
    pub user: User,
    /// Organizations that these credentials give access to.
    pub organizations: Vec<Membership>,
    /// How the caller is authenticated: `session` or `token`.
    pub authenticated_by: String,
    /// `tok_…` of the token used, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
}
