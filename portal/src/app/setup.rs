//! Set-up: the one-use link becomes the first owner, with an organization and a project named `default`.

use super::organizations::check_display_name;
use super::view;
use crate::app::sessions::{self, Cookies};
use crate::auth::password;
use crate::connection::Connection;
use crate::error::Error;
use crate::state::AppState;
use api_types::{Setup, SetupDone};
use axum::http::HeaderMap;
use migrations::{NewOwner, NewToken, Organization, Role, StoreError, User};
use secrecy::{ExposeSecret, SecretString};
use time::{Duration, OffsetDateTime};

const LONGEST_EMAIL: usize = 254;
const FIRST_TOKEN_NAME: &str = "set-up";
const FIRST_TOKEN_LIFETIME: Duration = Duration::days(90);

/// Whether there is no owner yet.
///
/// # Errors
/// Errors of the store.
pub async fn needed(state: &AppState) -> Result<bool, Error> {
    Ok(state.store().identity().setup_needed().await?)
}

/// Makes the first owner and a first API token; `None` when that was only tried out.
///
/// # Errors
/// [`Error::SetupDone`], [`Error::SetupToken`], [`Error::Invalid`], [`Error::RateLimited`].
pub async fn complete(state: &AppState, connection: &Connection, input: Setup) -> Result<Option<SetupDone>, Error> {
    let (user, organization) = owner(state, connection, input).await?;
    if state.store().is_dry_run() {
        return Ok(None);
    }
    let identity = state.store().identity();
    let new = NewToken {
        organization: organization.id,
        user: user.id,
        name: FIRST_TOKEN_NAME.into(),
        role: Role::Owner,
        expires_at: Some(OffsetDateTime::now_utc() + FIRST_TOKEN_LIFETIME),
        actor: migrations::Actor::User(user.id),
    };
    let (_, secret) = identity.create_token(new).await?;
    let project = identity.projects(organization.id).await?.into_iter().next();
    let project = project.ok_or_else(|| Error::internal("set-up made no project"))?;
    Ok(Some(SetupDone {
        user: view::user(user),
        organization: view::organization(&organization, Role::Owner),
        project: view::project(project),
        token: secret.expose_secret().to_owned(),
    }))
}

/// Makes the first owner and gives the cookies of their session.
///
/// # Errors
/// As [`complete`].
pub async fn complete_in_browser(
    state: &AppState,
    (headers, connection): (&HeaderMap, &Connection),
    input: Setup,
) -> Result<Cookies, Error> {
    let (user, _) = owner(state, connection, input).await?;
    sessions::start(state, &user, headers, connection).await
}

async fn owner(state: &AppState, connection: &Connection, input: Setup) -> Result<(User, Organization), Error> {
    if !needed(state).await? {
        return Err(Error::SetupDone);
    }
    state.limiter().attempt(connection.address, "set-up")?;
    let (email, display_name) = (email(&input.email)?, display_name(&input)?);
    let password = SecretString::from(input.password);
    password::check("/password", &password)?;
    let password_hash = state.passwords().hash(password).await?;
    let new = NewOwner { email, display_name, password_hash };
    let made = state.store().identity().complete_setup(&input.token, new).await;
    made.map_err(|error| match error {
        StoreError::NotFound { .. } => Error::SetupToken,
        StoreError::Conflict { .. } => Error::SetupDone,
        error => error.into(),
    })
}

fn email(text: &str) -> Result<String, Error> {
    let text = text.trim();
    let plausible = text.split_once('@').is_some_and(|(before, after)| !before.is_empty() && !after.is_empty());
    if plausible && text.len() <= LONGEST_EMAIL && !text.contains(|letter: char| letter.is_whitespace()) {
        return Ok(text.to_owned());
    }
    Err(Error::field("/email", "INVALID_EMAIL", "not an e-mail address: use the form ana@example.com"))
}

fn display_name(input: &Setup) -> Result<String, Error> {
    let before = input.email.trim().split('@').next().unwrap_or_default();
    let name = input.display_name.as_deref().unwrap_or(before).trim();
    check_display_name(name)?;
    Ok(name.to_owned())
}
