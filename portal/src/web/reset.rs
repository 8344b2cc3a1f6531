//! The operator's link for a forgotten password. The token is a part of the path; it works once, and nothing logs it.

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use secrecy::SecretString;
use serde::Deserialize;

use super::form::Refusal;
use super::setup::with_strict_referrer;
use super::signin::instance;
use super::{assets, render, shell, ui};
use crate::app::account;
use crate::connection::Connection;
use crate::error::Error;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "reset.html")]
struct Page {
    theme: &'static str,
    instance: String,
    /// Whether the link works, so that there is a form.
    open: bool,
    refusal: Refusal,
}

/// What was typed.
#[derive(Deserialize)]
pub struct Typed {
    password: SecretString,
}

/// `GET /reset/{token}`: the form while the link works.
pub async fn show(
    State(state): State<AppState>,
    connection: Connection,
    headers: HeaderMap,
    Path(token): Path<String>,
) -> Result<Response, Error> {
    match account::check_link(&state, &connection, &token).await {
        Ok(()) => page(&state, &headers, Refusal::default()),
        Err(error) => page(&state, &headers, Refusal::of(error)?),
    }
}

/// `POST /reset/{token}`: sets the password and signs in.
pub async fn submit(
    State(state): State<AppState>,
    connection: Connection,
    headers: HeaderMap,
    Path(token): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    match account::use_link(&state, (&headers, &connection), (&token, typed.password)).await {
        Ok(cookies) => Ok((cookies.headers(), Redirect::to("/clusters")).into_response()),
        Err(error) => page(&state, &headers, Refusal::of(error)?),
    }
}

fn page(state: &AppState, headers: &HeaderMap, refusal: Refusal) -> Result<Response, Error> {
    let (theme, instance, open) = (shell::theme(headers), instance(state), refusal.general().is_none());
    let page = Page { theme, instance, open, refusal };
    Ok(with_strict_referrer(render::page_as(page.refusal.status(), &page)?))
}
