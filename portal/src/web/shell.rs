//! The frame around every page of a signed-in person: who they are, which theme they chose, where they are.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use axum::http::request::Parts;

use crate::auth::{Action, Actor};
use crate::error::Error;
use crate::state::AppState;

/// Name of the cookie that keeps the theme.
pub const THEME_COOKIE: &str = "pilothouse_theme";

/// A signed-in person looking at a page.
pub struct PageContext {
    /// Who, and what they may.
    pub actor: Actor,
    /// The frame their pages get.
    pub shell: Shell,
}

/// What the frame shows.
#[derive(Clone)]
pub struct Shell {
    /// The address signed in with.
    pub email: String,
    /// One or two letters for the round button.
    pub initials: String,
    /// The organization, if there is one only.
    pub organization: String,
    /// Whether there is an organization whose audit log they may read.
    pub audit: bool,
    /// `auto`, `light` or `dark`.
    pub theme: &'static str,
    /// This program's version.
    pub version: &'static str,
}

impl FromRequestParts<AppState> for PageContext {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Error> {
        // Where admission did not stand before the route there is none: nobody is let in by mistake.
        let actor = Actor::from_request_parts(parts, state).await?;
        let shell = Shell {
            email: actor.user.email.clone(),
            initials: initials(&actor.user.display_name),
            organization: organization(&actor),
            audit: super::audit::readable(&actor).next().is_some(),
            theme: theme(&parts.headers),
            version: env!("CARGO_PKG_VERSION"),
        };
        Ok(PageContext { actor, shell })
    }
}

impl PageContext {
    /// Whether they may do that in that organization (id as text).
    pub fn may(&self, action: Action, organization: &str) -> bool {
        self.actor.may(action, organization)
    }
}

/// The theme kept in the cookies; `auto` without one.
pub fn theme(headers: &HeaderMap) -> &'static str {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == THEME_COOKIE).map_or("auto", |(_, value)| known_theme(value))
}

/// One of the three themes, whatever was sent.
pub fn known_theme(word: &str) -> &'static str {
    match word {
        "light" => "light",
        "dark" => "dark",
        _ => "auto",
    }
}

fn initials(name: &str) -> String {
    name.split_whitespace().filter_map(|word| word.chars().next()).take(2).flat_map(char::to_uppercase).collect()
}

fn organization(actor: &Actor) -> String {
    match actor.memberships.as_slice() {
        [(organization, _)] => organization.display_name.clone(),
        several => format!("{} organizations", several.len()),
    }
}
