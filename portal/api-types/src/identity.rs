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
    /// The address signed in with.
    pub email: String,
    /// The name shown.
    pub display_name: String,
    /// When the account was made.
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
    /// The name shown.
    pub display_name: String,
    /// The caller's role in it: `owner`, `admin`, `editor` or `viewer`.
    pub role: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Version of this representation, for `If-Match`.
    pub etag: String,
    /// Where it is found.
    pub links: Links,
}

/// Make an organization; the caller becomes its owner.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateOrganization {
    /// DNS label of at most 40 characters.
    pub name: String,
    /// The name shown; the name itself when missing.
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
    /// The name shown.
    pub display_name: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Version of this representation, for `If-Match`.
    pub etag: String,
    /// Where it is found.
    pub links: Links,
}

/// Make a project.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProject {
    /// DNS label of at most 40 characters.
    pub name: String,
    /// The name shown; the name itself when missing.
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

/// Who is asking.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The person, also when a token of theirs is used.
    pub user: User,
    /// What the caller can reach with these credentials.
    pub organizations: Vec<Membership>,
    /// How the caller is known: `session` or `token`.
    pub authenticated_by: String,
    /// `tok_…` of the token used, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
}
