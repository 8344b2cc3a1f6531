//! Organizations: who owns things.

use super::{find, view};
use crate::auth::Actor;
use crate::auth::policy::{self, Action, Object};
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;
use api_types::{CreateOrganization, List, Organization, Quota};
use migrations::{Role, StoreError};
use tenant_controlplane::name::OrganizationName;
use tenant_controlplane::text::printable_within;

const LONGEST_DISPLAY_NAME: usize = 100;

/// The caller's organizations.
///
/// # Errors
/// None of its own.
pub async fn list(_state: &AppState, actor: &Actor, paging: &Paging) -> Result<List<Organization>, Error> {
    policy::authorize(actor, Action::ReadAccount, Object::Account)?;
    let rows: Vec<_> = actor.memberships.iter().collect();
    let key = |row: &&(migrations::Organization, Role)| row.0.id.uuid();
    let named =
        |row: &&(migrations::Organization, Role)| paging.name.as_deref().is_none_or(|name| row.0.name.as_str() == name);
    let mut rows: Vec<_> = rows.into_iter().filter(named).collect();
    rows.sort_by_key(key);
    rows.retain(|row| paging.after.is_none_or(|after| key(row) > after));
    Ok(paging.finish(rows, key, |(organization, role)| view::organization(organization, *role)))
}

/// One organization, by id or name.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(_state: &AppState, actor: &Actor, id_or_name: &str) -> Result<Organization, Error> {
    let (organization, role) = find::organization(actor, id_or_name)?;
    policy::authorize(actor, Action::ReadOrganization, organization)?;
    Ok(view::organization(organization, *role))
}

/// What an organization has, and may have. Everybody in it sees that.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn quota(state: &AppState, actor: &Actor, id_or_name: &str) -> Result<Quota, Error> {
    let organization = find::organization(actor, id_or_name)?.0.id;
    policy::authorize(actor, Action::ReadOrganization, organization)?;
    let resources = state.store().quotas().list(organization.into()).await?;
    Ok(view::quota(organization, resources))
}

/// Makes an organization; the caller becomes its owner. Anybody signed in may; a token must be an owner's.
///
/// # Errors
/// [`Error::Forbidden`], [`Error::Invalid`], [`Error::NameTaken`], [`Error::QuotaReached`].
pub async fn create(state: &AppState, actor: &Actor, input: CreateOrganization) -> Result<Organization, Error> {
    policy::authorize(actor, Action::CreateOrganization, Object::Account)?;
    let name = OrganizationName::parse(&input.name).map_err(|error| Error::field("/name", "INVALID_NAME", error))?;
    let display_name = input.display_name.unwrap_or_else(|| name.to_string());
    check_display_name(&display_name)?;
    let identity = state.store().identity();
    let made = identity.create_organization(actor.user_id, name, &display_name, actor.by()).await;
    let organization = made.map_err(|error| taken(error, "organization", &input.name))?;
    Ok(view::organization(&organization, Role::Owner))
}

/// Refuses empty and very long names for people.
pub(super) fn check_display_name(name: &str) -> Result<(), Error> {
    let on_one_line = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let printable = printable_within(&on_one_line, on_one_line.len()) == on_one_line;
    if printable && (1..=LONGEST_DISPLAY_NAME).contains(&name.trim().chars().count()) {
        return Ok(());
    }
    let detail = format!("the display name must have 1 to {LONGEST_DISPLAY_NAME} printable characters");
    Err(Error::field("/display_name", "INVALID_LENGTH", detail))
}

/// A conflict while making something is its name being taken.
pub(super) fn taken(error: StoreError, what: &'static str, name: &str) -> Error {
    match error {
        StoreError::Conflict { .. } => Error::NameTaken { what, name: name.to_owned() },
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_name_moves_and_turns_nothing() {
        for name in ["Ops", "Équipe  plateforme", " 東京 "] {
            assert!(check_display_name(name).is_ok(), "{name}");
        }
        for name in ["", " ", "x\u{1b}[31mred", "a\u{202e}b", "bell\u{7}"] {
            assert!(check_display_name(name).is_err(), "{name:?}");
        }
    }
}
