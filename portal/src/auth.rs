//! Who is calling: a session cookie from a browser, or a bearer token from a program. Pages take sessions only.
//!
//! Two layers ask, `api::middleware` around REST and `web::admission` around the pages; both count, and leave the [`Actor`] on the
//! request. What no layer let in has none.
//!
//! Both lead to an [`Actor`]: a person and what these credentials reach. A token reaches one organization, with the
//! lesser of its own role and its owner's present role, so taking a role from a person takes it from their tokens too.

pub mod address;
pub mod bucket;
pub mod cookie;
pub mod csrf;
pub mod device;
pub mod limit;
pub mod password;
pub mod policy;
pub mod rate;
pub mod session;
pub mod token;

pub use policy::Action;

use crate::app::view;
use crate::audit;
use crate::connection::{Connection, CredentialSeen};
use crate::error::Error;
use crate::state::AppState;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use migrations::{Organization, Role, Session, User};
use std::sync::{Arc, OnceLock};
use tenant_controlplane::id::{ApiTokenId, OrganizationId, UserId};
use time::OffsetDateTime;

/// A caller, known by valid credentials.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The person, also behind a token.
    pub user: api_types::User,
    /// Their id, typed.
    pub user_id: UserId,
    /// The organizations within reach, with the role held there.
    pub memberships: Vec<(Organization, Role)>,
    /// The token used; `None` for a session.
    pub token: Option<ApiTokenId>,
    /// When these credentials end; `None` for a session and for a token without an end.
    pub until: Option<OffsetDateTime>,
    /// The session used; `None` for a token.
    pub session: Option<Session>,
    /// Where the caller was refused, for the audit log.
    pub refused: Arc<OnceLock<OrganizationId>>,
}

impl Actor {
    /// A person by session: everything they are a member of.
    pub async fn of_user(state: &AppState, user: User) -> Result<Self, Error> {
        let memberships = state.store().identity().organizations_of(user.id).await?;
        let (token, until, session, refused) = (None, None, None, Arc::default());
        Ok(Self { user_id: user.id, user: view::user(user), memberships, token, until, session, refused })
    }

    /// The organization in which the caller was refused something.
    pub fn refused_in(&self) -> Option<OrganizationId> {
        self.refused.get().copied()
    }

    /// The role held in an organization; `None` also where the text is no id.
    pub fn role_in(&self, organization: &str) -> Option<Role> {
        let id: OrganizationId = organization.parse().ok()?;
        self.role(id)
    }

    /// The role held in an organization.
    pub fn role(&self, organization: OrganizationId) -> Option<Role> {
        self.memberships.iter().find(|(known, _)| known.id == organization).map(|(_, role)| *role)
    }

    /// Whether the caller may do that in that organization (id as text); for what pages offer.
    pub fn may(&self, action: Action, organization: &str) -> bool {
        organization.parse::<OrganizationId>().is_ok_and(|organization| policy::may(self, action, organization).is_ok())
    }

    /// The caller as the store's audit log names them.
    pub fn by(&self) -> migrations::Actor {
        match self.token {
            Some(token) => migrations::Actor::Token { token, user: self.user_id },
            None => migrations::Actor::User(self.user_id),
        }
    }

    /// The organizations within reach.
    pub fn organizations(&self) -> impl Iterator<Item = OrganizationId> + '_ {
        self.memberships.iter().map(|(organization, _)| organization.id)
    }
}

impl FromRequestParts<AppState> for Actor {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Error> {
        parts.extensions.get::<Self>().cloned().ok_or(Error::Unauthenticated)
    }
}

/// The caller's session, if they have one; for pages that anybody may open. Only a fault of ours is a rejection.
pub struct MaybeActor(pub Option<Actor>);

impl FromRequestParts<AppState> for MaybeActor {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        match of_browser(parts, state).await {
            Ok(actor) => Ok(Self(Some(actor))),
            Err(Error::Unauthenticated) => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }
}

/// Who opens a page. Only its session counts: a token is for `/api`, and no browser sends one by itself.
///
/// # Errors
/// [`Error::Unauthenticated`]; errors of the store.
pub async fn of_browser(parts: &mut Parts, state: &AppState) -> Result<Actor, Error> {
    let Ok(connection) = Connection::from_request_parts(parts, state).await;
    let actor = session::actor(state, &parts.headers, &connection).await?;
    report(parts, &actor);
    Ok(actor)
}

/// Who calls REST. The bearer token decides where one is sent; the cookie is not looked at then.
///
/// # Errors
/// [`Error::Unauthenticated`]; errors of the store.
pub async fn of_program(parts: &mut Parts, state: &AppState) -> Result<Actor, Error> {
    let Ok(connection) = Connection::from_request_parts(parts, state).await;
    let actor = match token::bearer(&parts.headers)? {
        Some(secret) => token::actor(state, secret, &connection).await?,
        None => session::actor(state, &parts.headers, &connection).await?,
    };
    report(parts, &actor);
    Ok(actor)
}

/// For the layers outside: who it is, and that a valid credential was shown.
fn report(parts: &Parts, actor: &Actor) {
    if let Some(caller) = parts.extensions.get::<audit::Caller>() {
        caller.set_actor(actor);
    }
    if let Some(seen) = parts.extensions.get::<CredentialSeen>() {
        seen.report();
    }
}
