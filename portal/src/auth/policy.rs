//! Who may do what: one function, [`may`], over one table, [`Action::rule`]. Nothing else decides about permission.
//!
//! A thing outside the caller's organizations is [`Error::NotFound`]; a verb above their role is [`Error::Forbidden`]. A token may
//! do less than its owner where what it makes would last longer than itself: whoever finds a small token must not be able to turn
//! it into the account.

use super::Actor;
use crate::error::Error;
use migrations::{ApiToken, Cluster, JoinToken, Kubeconfig, Node, NodePool, Operation, Organization, Project, Role};
use tenant_controlplane::id::OrganizationId;

/// What is done. As a word it is the operation of REST that does it, without what depends on the request: `force`, a kind, a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::VariantArray, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Action {
    /// See who one is, one's organizations, projects, tokens, and operations within reach.
    ReadAccount,
    /// Change one's password; see and end one's sessions.
    ManageAccount,
    /// Make an organization, and be its owner.
    CreateOrganization,
    /// Make an API token for oneself.
    CreateToken,
    /// Revoke one's own API token.
    RevokeOwnToken,
    /// Revoke another person's API token.
    RevokeToken,
    /// See an organization and its quotas.
    ReadOrganization,
    /// See who did what in an organization.
    ReadAuditLog,
    /// See projects.
    ReadProject,
    /// Make a project.
    CreateProject,
    /// See clusters.
    ReadCluster,
    /// Make a cluster.
    CreateCluster,
    /// Delete a cluster.
    DeleteCluster,
    /// Delete a cluster and wait for nothing: machines and volumes may be left that somebody has to look after.
    ForceDeleteCluster,
    /// See node pools.
    ReadNodePool,
    /// Make a pool of machines that the user brings.
    CreateNodePool,
    /// Change a pool of machines that the user brings.
    ChangeNodePool,
    /// Make a pool of local machines: they use the platform's own machine, and without isolation may do nearly everything there.
    CreateLocalNodePool,
    /// Change how many local machines a pool has.
    ChangeLocalNodePool,
    /// Delete a node pool.
    DeleteNodePool,
    /// See nodes.
    ReadNode,
    /// Remove a node.
    DeleteNode,
    /// Remove a node and wait for nothing.
    ForceDeleteNode,
    /// See join tokens, without their secrets.
    ReadJoinToken,
    /// Make a join token.
    CreateJoinToken,
    /// Revoke a join token.
    RevokeJoinToken,
    /// See which kubeconfigs there are.
    ReadKubeconfig,
    /// Get a kubeconfig of the role `view`.
    IssueViewKubeconfig,
    /// Get a kubeconfig of the role `edit` or `admin`.
    IssueKubeconfig,
    /// The same in a cluster whose local machines share the platform's kernel.
    IssueKubeconfigSharingKernel,
    /// Revoke a kubeconfig.
    RevokeKubeconfig,
    /// See an operation.
    ReadOperation,
    /// See every organization of the installation and set its quotas, as an owner of the first one. No token does.
    SetQuotas,
}

/// Who may do something in the organization of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// Whoever is known.
    Anybody,
    /// Whoever has at least this role there.
    Role(Role),
    /// Nobody.
    Nobody,
}

/// Who may perform an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A person in a browser.
    pub session: Least,
    /// An API token.
    pub token: Least,
}

impl Rule {
    const fn role(least: Role) -> Self {
        Self { session: Least::Role(least), token: Least::Role(least) }
    }
}

impl Action {
    /// The row of this action in the table.
    pub const fn rule(self) -> Rule {
        match self {
            Self::ReadAccount | Self::RevokeOwnToken => Rule { session: Least::Anybody, token: Least::Anybody },
            Self::ManageAccount => Rule { session: Least::Anybody, token: Least::Role(Role::Admin) },
            Self::CreateOrganization => Rule { session: Least::Anybody, token: Least::Role(Role::Owner) },
            Self::CreateToken => Rule { session: Least::Role(Role::Viewer), token: Least::Role(Role::Admin) },
            Self::ReadOrganization
            | Self::ReadProject
            | Self::ReadCluster
            | Self::ReadNodePool
            | Self::ReadNode
            | Self::ReadJoinToken
            | Self::ReadKubeconfig
            | Self::IssueViewKubeconfig
            | Self::ReadOperation => Rule::role(Role::Viewer),
            Self::CreateCluster
            | Self::DeleteCluster
            | Self::CreateNodePool
            | Self::ChangeNodePool
            | Self::DeleteNodePool
            | Self::DeleteNode
            | Self::CreateJoinToken
            | Self::RevokeJoinToken
            | Self::IssueKubeconfig
            | Self::RevokeKubeconfig => Rule::role(Role::Editor),
            Self::ReadAuditLog
            | Self::CreateProject
            | Self::ForceDeleteCluster
            | Self::CreateLocalNodePool
            | Self::ChangeLocalNodePool
            | Self::ForceDeleteNode
            | Self::IssueKubeconfigSharingKernel
            | Self::RevokeToken => Rule::role(Role::Admin),
            Self::SetQuotas => Rule { session: Least::Role(Role::Owner), token: Least::Nobody },
        }
    }
}

/// What it is done to: everything belongs to an organization, or is the caller's own account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The caller's account. A token is judged by its role in the organization that it reaches.
    Account,
    /// Anything of this organization, or the organization itself.
    Of(OrganizationId),
}

impl From<OrganizationId> for Object {
    fn from(organization: OrganizationId) -> Self {
        Self::Of(organization)
    }
}

impl From<&Organization> for Object {
    fn from(organization: &Organization) -> Self {
        Self::Of(organization.id)
    }
}

macro_rules! owned {
    ($($row:ty),*) => {
        $(impl From<&$row> for Object {
            fn from(row: &$row) -> Self {
                Self::Of(row.organization)
            }
        })*
    };
}

owned!(Project, Cluster, NodePool, Node, JoinToken, Kubeconfig, ApiToken, Operation);

/// Why something is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The object is of an organization that these credentials do not reach, or nobody with such credentials may.
    OutOfReach,
    /// The role held in this organization is too low.
    Role {
        /// Where.
        organization: OrganizationId,
        /// The least role that may.
        needed: Role,
        /// The caller's.
        held: Role,
    },
}

/// Whether the caller may do that to the object.
///
/// # Errors
/// Why not.
pub fn may(actor: &Actor, action: Action, object: impl Into<Object>) -> Result<(), Denied> {
    let rule = action.rule();
    let needed = match if actor.token.is_some() { rule.token } else { rule.session } {
        Least::Anybody => return Ok(()),
        Least::Role(needed) => needed,
        Least::Nobody => return Err(Denied::OutOfReach),
    };
    let organization = match object.into() {
        Object::Of(organization) => organization,
        Object::Account => actor.organizations().next().ok_or(Denied::OutOfReach)?,
    };
    let held = actor.role(organization).ok_or(Denied::OutOfReach)?;
    if held >= needed { Ok(()) } else { Err(Denied::Role { organization, needed, held }) }
}

/// [`may`] for an operation: a refusal is its error, and is remembered for the audit log.
///
/// # Errors
/// [`Error::NotFound`] for an organization out of reach, [`Error::Forbidden`] for too low a role.
pub fn authorize(actor: &Actor, action: Action, object: impl Into<Object>) -> Result<(), Error> {
    may(actor, action, object).map_err(|denied| match denied {
        Denied::OutOfReach => Error::NotFound { what: "organization" },
        Denied::Role { organization, needed, held } => {
            let _ = actor.refused.set(organization);
            Error::Forbidden { needed: needed.as_str(), held: held.as_str() }
        }
    })
}

/// The role of a word.
///
/// # Errors
/// A validation error for `pointer` that lists the words.
pub fn parse(pointer: &str, text: &str) -> Result<Role, Error> {
    text.parse().map_err(|_| {
        let detail = format!("`{text}` is not a role: choose owner, admin, editor or viewer");
        Error::field(pointer, "UNKNOWN_VALUE", detail)
    })
}

#[cfg(test)]
mod tests;
