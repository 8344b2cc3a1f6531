//! The setup link: the first owner's account. The token is a part of the path; it works once, and nothing logs it.

use api_types::Setup;
use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::http::header::{HeaderMap, HeaderValue, REFERRER_POLICY};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::form::Refusal;
use super::signin::instance;
use super::{assets, render, shell, ui};
use crate::app;
use crate::connection::Connection;
use crate::error::Error;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "setup.html")]
struct Page {
    theme: &'static str,
    instance: String,
    email: String,
    display_name: String,
    refusal: Refusal,
}

/// What was typed.
#[derive(Deserialize)]
pub struct Typed {
    email: String,
    #[serde(default)]
    display_name: String,
    password: String,
}

/// `GET /setup/{token}`: the form while set-up is open; afterwards the way to sign in.
pub async fn show(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, Error> {
    if !app::setup::needed(&state).await? {
        return Ok(Redirect::to("/signin").into_response());
    }
    let page = Page {
        theme: shell::theme(&headers),
        instance: instance(&state),
        email: String::new(),
        display_name: String::new(),
        refusal: Refusal::default(),
    };
    Ok(with_strict_referrer(render::page(&page)?))
}

/// `POST /setup/{token}`: makes the owner and signs them in.
pub async fn submit(
    State(state): State<AppState>,
    connection: Connection,
    headers: HeaderMap,
    Path(token): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    let (email, display_name) = (typed.email.trim().to_owned(), typed.display_name.trim().to_owned());
    let name = Some(display_name.clone()).filter(|name| !name.is_empty());
    let input = Setup { token, email: email.clone(), display_name: name, password: typed.password };
    match app::setup::complete_in_browser(&state, (&headers, &connection), input).await {
        Ok(cookies) => Ok((cookies.headers(), Redirect::to("/clusters")).into_response()),
        Err(error) => {
            let refusal = Refusal::of(error)?;
            let status = refusal.status();
            let page = Page { theme: "auto", instance: instance(&state), email, display_name, refusal };
            Ok(with_strict_referrer(render::page_as(status, &page)?))
        }
    }
}

/// The address holds the token, so a link from this page must not carry it.
pub(super) fn with_strict_referrer(mut response: Response) -> Response {
    // Not `no-referrer`: then browsers send `Origin: null` with the form, and the cross-site check has nothing to go by.
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("strict-origin"));
    response
}
