//! The audit log of an organization.

use super::{find, view};
use crate::auth::Actor;
use crate::auth::policy::{self, Action};
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;
use api_types::{AuditEntry, List};
use migrations::{AuditFilter, Page};
use std::collections::BTreeMap;
use tenant_controlplane::id::OrganizationId;

/// An organization's entries that fit, the newest first.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn list(
    state: &AppState,
    actor: &Actor,
    id_or_name: &str,
    (mut filter, paging): (AuditFilter, &Paging),
) -> Result<List<AuditEntry>, Error> {
    let organization = find::organization(actor, id_or_name)?.0.id;
    policy::authorize(actor, Action::ReadAuditLog, organization)?;
    let names = names(state, organization).await?;
    if let Some(id) = filter.actor.as_ref().and_then(|actor| id_of(&names, actor)) {
        filter.actor = Some(id);
    }
    let page = Page { after: paging.after, limit: paging.limit + 1 };
    let rows = state.store().audit().find(Some(organization), &filter, page).await?;
    let show = |row: migrations::AuditEntry| {
        let name = names.get(&row.actor).cloned();
        view::audit_entry(row, name)
    };
    Ok(paging.finish(rows, |row| row.id.uuid(), show))
}

/// What the organization's people and tokens are called, by id.
async fn names(state: &AppState, organization: OrganizationId) -> Result<BTreeMap<String, String>, Error> {
    let identity = state.store().identity();
    let members = identity.members(organization).await?;
    let mut names: BTreeMap<_, _> =
        members.into_iter().map(|(member, _)| (member.id.to_string(), member.email)).collect();
    for token in identity.tokens(organization).await? {
        let owner = names.get(&token.user.to_string()).cloned().unwrap_or_default();
        names.insert(token.id.to_string(), format!("{} of {owner}", token.name));
    }
    Ok(names)
}

/// The id of somebody who was given by e-mail address.
fn id_of(names: &BTreeMap<String, String>, email: &str) -> Option<String> {
    let email = email.trim().to_lowercase();
    names.iter().find(|(id, name)| id.starts_with("usr_") && **name == email).map(|(id, _)| id.clone())
}
