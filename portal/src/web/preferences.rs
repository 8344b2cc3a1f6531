//! The theme a person chose, kept in a cookie.

use axum::Form;
use axum::http::header::{HeaderMap, REFERER, SET_COOKIE};
use axum::response::{AppendHeaders, IntoResponse, Redirect};
use serde::Deserialize;

use super::shell::{THEME_COOKIE, known_theme};
use super::signin::local_path;

/// The choice.
#[derive(Deserialize)]
pub struct Choice {
    theme: String,
}

/// `POST /preferences/theme`: keeps the choice and goes back to the page it was made on.
pub async fn theme(headers: HeaderMap, Form(choice): Form<Choice>) -> impl IntoResponse {
    let theme = known_theme(&choice.theme);
    let cookie = format!("{THEME_COOKIE}={theme}; Path=/; HttpOnly; SameSite=Lax; Max-Age=31536000");
    (AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to(&came_from(&headers)))
}

/// The path of the page the form stood on; only the path, so that nothing leads elsewhere.
fn came_from(headers: &HeaderMap) -> String {
    let page = headers.get(REFERER).and_then(|page| page.to_str().ok()).unwrap_or_default();
    let path = page.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    local_path(path)
}
