//! Who may do what. A thing outside the caller's organizations is [`Error::NotFound`]; a verb above their role is
//! [`Error::Forbidden`]. Nothing else decides about permission.

use super::Actor;
use crate::error::Error;
use migrations::Role;
use tenant_controlplane::id::OrganizationId;

/// What is done, by the least role it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// See things; make kubeconfigs of role `view`: viewer.
    Read,
    /// Make and delete clusters, pools, nodes, join tokens; make and revoke kubeconfigs: editor.
    Write,
    /// Make projects and local machines; see and revoke other people's tokens: admin.
    Admin,
    /// Make organizations with a token: owner.
    Own,
}

impl Action {
    fn least(self) -> Role {
        match self {
            Self::Read => Role::Viewer,
            Self::Write => Role::Editor,
            Self::Admin => Role::Admin,
            Self::Own => Role::Owner,
        }
    }
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

/// Whether a role suffices.
pub fn allows(role: Role, action: Action) -> bool {
    role >= action.least()
}

/// Lets the caller do that in that organization, or says why not.
///
/// # Errors
/// [`Error::NotFound`] for an organization out of reach, [`Error::Forbidden`] for too low a role.
pub fn authorize(actor: &Actor, organization: OrganizationId, action: Action) -> Result<Role, Error> {
    let held = actor.role(organization).ok_or(Error::NotFound { what: "organization" })?;
    if allows(held, action) {
        return Ok(held);
    }
    let _ = actor.refused.set(organization);
    Err(Error::Forbidden { needed: action.least().as_str(), held: held.as_str() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered() {
        let allowed = |role, actions: [bool; 4]| {
            let all = [Action::Read, Action::Write, Action::Admin, Action::Own];
            assert_eq!(all.map(|action| allows(role, action)), actions, "{role}");
        };
        allowed(Role::Viewer, [true, false, false, false]);
        allowed(Role::Editor, [true, true, false, false]);
        allowed(Role::Admin, [true, true, true, false]);
        allowed(Role::Owner, [true, true, true, true]);
    }
}
