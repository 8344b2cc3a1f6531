//! Quotas as the operator sees and sets them: of every organization of the installation.
//!
//! The operator in the portal is an owner of the installation's first organization: whoever got the first setup link. To everybody
//! else, and to tokens, which reach one organization, none of this is there.

use crate::auth::Actor;
use crate::auth::policy::{self, Action};
use crate::error::Error;
use crate::state::AppState;
use migrations::{Organization, QuotaUse, Quotas, Resource};
use tenant_controlplane::id::OrganizationId;

/// Whether the caller is the operator.
///
/// # Errors
/// Errors of the store.
pub async fn is_operator(state: &AppState, actor: &Actor) -> Result<bool, Error> {
    let first = state.store().identity().first_organization().await?;
    Ok(first.is_some_and(|first| policy::may(actor, Action::SetQuotas, first).is_ok()))
}

/// Every organization, the oldest first.
///
/// # Errors
/// [`Error::NotFound`] for whoever is not the operator.
pub async fn organizations(state: &AppState, actor: &Actor) -> Result<Vec<Organization>, Error> {
    require(state, actor).await?;
    Ok(state.store().identity().all_organizations().await?)
}

/// One organization, by its id, with all its quotas.
///
/// # Errors
/// [`Error::NotFound`] for whoever is not the operator, and without such an organization.
pub async fn get(state: &AppState, actor: &Actor, id: &str) -> Result<(Organization, Vec<QuotaUse>), Error> {
    let organization = find(state, actor, id).await?;
    let quotas = state.store().quotas().list(organization.id.into()).await?;
    Ok((organization, quotas))
}

/// Sets one limit of an organization. What is there already stays, also above it.
///
/// # Errors
/// [`Error::NotFound`] as for [`get`]; [`Error::Invalid`] for a resource that is none, or a limit out of range.
pub async fn set(state: &AppState, actor: &Actor, id: &str, wanted: (&str, &str)) -> Result<(), Error> {
    let organization = find(state, actor, id).await?;
    let (resource, limit) = parse(wanted)?;
    state.store().quotas().set(organization.id.into(), resource, limit, actor.by()).await?;
    Ok(())
}

/// The largest limit that can be set.
pub const MAX_LIMIT: u64 = Quotas::MAX_LIMIT;

fn parse((resource, limit): (&str, &str)) -> Result<(Resource, u64), Error> {
    let known = resource.parse().ok().filter(|resource: &Resource| !resource.is_personal());
    let known =
        known.ok_or_else(|| Error::field("/resource", "UNKNOWN_VALUE", "no resource with a quota has that name"))?;
    let limit = limit.trim().parse().ok().filter(|limit| *limit <= MAX_LIMIT);
    let limit = limit.ok_or_else(|| {
        Error::field("/limit", "OUT_OF_RANGE", format!("the limit must be a number from 0 to {MAX_LIMIT}"))
    })?;
    Ok((known, limit))
}

async fn require(state: &AppState, actor: &Actor) -> Result<(), Error> {
    if is_operator(state, actor).await? { Ok(()) } else { Err(Error::NotFound { what: "page" }) }
}

async fn find(state: &AppState, actor: &Actor, id: &str) -> Result<Organization, Error> {
    let all = organizations(state, actor).await?;
    let id: Option<OrganizationId> = id.parse().ok();
    all.into_iter().find(|organization| Some(organization.id) == id).ok_or(Error::NotFound { what: "organization" })
}
