//! API tokens.

use super::{find, view};
use crate::auth::Actor;
use crate::auth::policy::{self, Action, Object};
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;
use api_types::{CreateToken, CreatedToken, List, Token};
use migrations::{NewToken, Organization, Role};
use tenant_controlplane::id::ApiTokenId;
use time::{Duration, OffsetDateTime};

const LONGEST_NAME: usize = 64;
const SHORTEST_LIFETIME: u64 = 60;
const DAY: u64 = 24 * 60 * 60;
const DEFAULT_LIFETIME: u64 = 90 * DAY;
const LONGEST_LIFETIME: u64 = 365 * DAY;

/// The caller's tokens in all organizations within reach.
///
/// # Errors
/// Errors of the store.
pub async fn list(state: &AppState, actor: &Actor, paging: &Paging) -> Result<List<Token>, Error> {
    policy::authorize(actor, Action::ReadAccount, Object::Account)?;
    let mut rows = state.store().identity().tokens_of(actor.user_id).await?;
    rows.retain(|token| actor.role(token.organization).is_some());
    Ok(paging.cut(rows, |row| (row.id.uuid(), row.name.as_str()), view::token))
}

/// Makes a token for the caller. It can do no more than the caller; one made by a token does not outlive it, and takes the role
/// admin: whoever finds a small token must not be able to turn it into a lasting one.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Invalid`], [`Error::Forbidden`] for a role above the caller's.
pub async fn create(state: &AppState, actor: &Actor, input: CreateToken) -> Result<CreatedToken, Error> {
    let (organization, held) = organization(actor, input.organization.as_deref())?;
    let role = role(input.role.as_deref(), *held)?;
    check_name(&input.name)?;
    policy::authorize(actor, Action::CreateToken, organization)?;
    let (default, longest) = reach(actor);
    let seconds = lifetime(input.expires_in_seconds, default, longest)?;
    let new = NewToken {
        organization: organization.id,
        user: actor.user_id,
        name: input.name,
        role,
        expires_at: Some(OffsetDateTime::now_utc() + seconds),
        actor: actor.by(),
    };
    let (token, secret) = state.store().identity().create_token(new).await?;
    Ok(CreatedToken { token: view::token(token), secret: state.shown_once(&secret) })
}

/// Revokes a token: one's own, or with the role admin anybody's in the organization. Of a token only itself is its own.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`].
pub async fn revoke(state: &AppState, actor: &Actor, id: &str) -> Result<(), Error> {
    let id: ApiTokenId = find::id(id, "token")?;
    for organization in actor.organizations() {
        let tokens = state.store().identity().tokens(organization).await?;
        if let Some(token) = tokens.into_iter().find(|token| token.id == id) {
            let own = token.user == actor.user_id && actor.token.is_none_or(|used| used == id);
            policy::authorize(actor, if own { Action::RevokeOwnToken } else { Action::RevokeToken }, &token)?;
            return Ok(state.store().identity().revoke_token(organization, id, actor.by()).await?);
        }
    }
    Err(Error::NotFound { what: "token" })
}

fn organization<'a>(actor: &'a Actor, wanted: Option<&str>) -> Result<&'a (Organization, Role), Error> {
    match (wanted, actor.memberships.as_slice()) {
        (Some(wanted), _) => find::organization(actor, wanted),
        (None, [only]) => Ok(only),
        (None, _) => {
            let detail = "you are a member of several organizations: specify one";
            Err(Error::field("/organization", "REQUIRED", detail))
        }
    }
}

fn role(wanted: Option<&str>, held: Role) -> Result<Role, Error> {
    let wanted = wanted.map(|word| policy::parse("/role", word)).transpose()?.unwrap_or(held);
    if wanted <= held {
        return Ok(wanted);
    }
    Err(Error::Forbidden { needed: wanted.as_str(), held: held.as_str() })
}

/// The default and the longest lifetime, in seconds, of a token that this caller makes.
fn reach(actor: &Actor) -> (u64, u64) {
    let left = actor.until.map(|until| (until - OffsetDateTime::now_utc()).whole_seconds());
    let left = left.map_or(u64::MAX, |seconds| u64::try_from(seconds).unwrap_or(0));
    (DEFAULT_LIFETIME.min(left), LONGEST_LIFETIME.min(left))
}

/// Refuses empty and very long names.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let printable = name.chars().all(|letter| !letter.is_control());
    if printable && (1..=LONGEST_NAME).contains(&name.trim().chars().count()) {
        return Ok(());
    }
    let detail = format!("the name must have 1 to {LONGEST_NAME} characters and no control characters");
    Err(Error::field("/name", "INVALID_NAME", detail))
}

/// A lifetime within bounds, in seconds.
///
/// # Errors
/// A validation error for `/expires_in_seconds` that tells the bounds.
pub(super) fn lifetime(wanted: Option<u64>, default: u64, longest: u64) -> Result<Duration, Error> {
    let seconds = wanted.unwrap_or(default);
    if (SHORTEST_LIFETIME..=longest).contains(&seconds) {
        return Ok(Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX)));
    }
    let days = longest / DAY;
    let detail = match longest {
        0..SHORTEST_LIFETIME => {
            "these credentials expire too soon to create others: use credentials with more remaining lifetime"
                .to_owned()
        }
        _ => {
            format!("{seconds} seconds are out of range: choose {SHORTEST_LIFETIME} to {longest} seconds ({days} days)")
        }
    };
    Err(Error::field("/expires_in_seconds", "OUT_OF_RANGE", detail))
}
