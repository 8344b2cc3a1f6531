//! Who is asking.

use crate::auth::Actor;
use crate::auth::policy::{self, Action, Object};
use crate::error::Error;
use crate::state::AppState;
use api_types::{Me, Membership};

/// The caller and their memberships.
///
/// # Errors
/// None today; the signature is that of all operations.
pub async fn get(_state: &AppState, actor: &Actor) -> Result<Me, Error> {
    policy::authorize(actor, Action::ReadAccount, Object::Account)?;
    let organizations = actor.memberships.iter().map(|(organization, role)| Membership {
        organization_id: organization.id.to_string(),
        organization_name: organization.name.to_string(),
        role: role.to_string(),
    });
    let authenticated_by = if actor.token.is_some() { "token" } else { "session" };
    Ok(Me {
        user: actor.user.clone(),
        organizations: organizations.collect(),
        authenticated_by: authenticated_by.into(),
        token_id: actor.token.map(|token| token.to_string()),
    })
}
