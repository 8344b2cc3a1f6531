//! Signing in and out.

use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::http::header::SET_COOKIE;
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::form::Refusal;
use super::{assets, render, shell, ui};
use crate::app;
use crate::auth::MaybeActor;
use crate::connection::Connection;
use crate::error::Error;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "signin.html")]
struct Page {
    theme: &'static str,
    instance: String,
    /// Whether the first owner is still to come.
    setup_needed: bool,
    email: String,
    next: String,
    refusal: Refusal,
}

/// Where to go afterwards.
#[derive(Deserialize)]
pub struct NextQuery {
    next: Option<String>,
}

/// What was typed.
#[derive(Deserialize)]
pub struct Typed {
    email: String,
    password: String,
    #[serde(default)]
    next: String,
}

/// `GET /signin`
pub async fn show(
    State(state): State<AppState>,
    MaybeActor(actor): MaybeActor,
    Query(query): Query<NextQuery>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let next = local_path(query.next.as_deref());
    if actor.is_some() {
        return Ok(Redirect::to(&next).into_response());
    }
    let page = Page { next, ..empty(&state, &headers).await? };
    render::page(&page)
}

/// `POST /signin`: 303 onward with a session, or the form again.
pub async fn submit(
    State(state): State<AppState>,
    connection: Connection,
    headers: HeaderMap,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    let next = local_path(Some(&typed.next));
    let (email, password) = (typed.email.trim(), typed.password.as_str());
    let attempt = app::sessions::Attempt { email, password, headers: &headers, connection: &connection };
    match app::sessions::sign_in(&state, attempt).await {
        Ok(cookies) => Ok((cookies.headers(), Redirect::to(&next)).into_response()),
        Err(error) => {
            let refusal = Refusal::of(error)?;
            let status = refusal.status();
            let page = Page { email: typed.email, next, refusal, ..empty(&state, &headers).await? };
            render::page_as(status, &page)
        }
    }
}

/// `POST /signout`: ends the session.
pub async fn sign_out(
    State(state): State<AppState>,
    connection: Connection,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let cookie = app::sessions::sign_out(&state, &headers, &connection).await?;
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to("/signin")).into_response())
}

async fn empty(state: &AppState, headers: &HeaderMap) -> Result<Page, Error> {
    Ok(Page {
        theme: shell::theme(headers),
        instance: instance(state),
        setup_needed: app::setup::needed(state).await?,
        email: String::new(),
        next: "/clusters".into(),
        refusal: Refusal::default(),
    })
}

/// The portal's address as people know it, without its scheme.
pub fn instance(state: &AppState) -> String {
    let url = state.config().public_url.as_str();
    url.split_once("://").map_or(url, |(_, rest)| rest).to_owned()
}

/// A path on this portal and nowhere else; the cluster list for anything that is not one. Browsers drop tabs and line ends
/// from addresses, so `/<tab>/evil.example` would lead away.
pub fn local_path(text: Option<&str>) -> String {
    let fine = |path: &&str| {
        let own = path.starts_with('/')
            && !path.starts_with("//")
            && !path.contains(|letter: char| letter == '\\' || letter.is_control());
        own && !["/signin", "/setup", "/reset"].iter().any(|root| path.starts_with(root))
    };
    text.filter(fine).unwrap_or("/clusters").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_onward_never_leaves_the_portal() {
        assert_eq!(local_path(Some("/clusters/cls_1?a=b")), "/clusters/cls_1?a=b");
        for wrong in [
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "clusters",
            "",
            "/signin",
            "/setup/x",
            "/reset/x",
            "/\t/evil.example",
        ] {
            assert_eq!(local_path(Some(wrong)), "/clusters", "{wrong}");
        }
    }
}
