//! One's own account: the password and the browsers that are signed in.

use api_types::{ChangePassword, Session};
use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::form::Refusal;
use super::shell::{PageContext, Shell};
use super::ui::{Moment, ago};
use super::{assets, render, ui};
use crate::app::account;
use crate::connection::Connection;
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "account.html")]
struct Page {
    shell: Shell,
    /// Whether the password was changed just now.
    changed: bool,
    refusal: Refusal,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    browser: String,
    current: bool,
    network: String,
    used: Moment,
    began: Moment,
}

/// What was typed.
#[derive(Deserialize)]
pub struct Typed {
    current_password: String,
    new_password: String,
}

/// `GET /account`
pub async fn show(State(state): State<AppState>, context: PageContext) -> Result<Response, Error> {
    page(&state, context, Ok(false)).await
}

/// `POST /account/password`
pub async fn password(
    State(state): State<AppState>,
    context: PageContext,
    connection: Connection,
    Form(typed): Form<Typed>,
) -> Result<Response, Error> {
    let Typed { current_password, new_password } = typed;
    let input = ChangePassword { current_password, new_password };
    let done = match account::change_password(&state, &context.actor, &connection, input).await {
        Ok(_) => Ok(true),
        Err(error) => Err(Refusal::of(error)?),
    };
    page(&state, context, done).await
}

/// `POST /account/sessions/{session}/end`
pub async fn end(
    State(state): State<AppState>,
    context: PageContext,
    connection: Connection,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    account::end(&state, &context.actor, &connection, &id).await?;
    Ok(Redirect::to("/account").into_response())
}

/// `POST /account/sessions/end`: all but this one.
pub async fn end_others(
    State(state): State<AppState>,
    context: PageContext,
    connection: Connection,
) -> Result<Response, Error> {
    account::end_others(&state, &context.actor, &connection).await?;
    Ok(Redirect::to("/account").into_response())
}

async fn page(state: &AppState, context: PageContext, done: Result<bool, Refusal>) -> Result<Response, Error> {
    let sessions = account::list(state, &context.actor, &Paging::all()).await?.items;
    let (changed, refusal) = match done {
        Ok(changed) => (changed, Refusal::default()),
        Err(refusal) => (false, refusal),
    };
    let rows = sessions.into_iter().rev().map(row).collect();
    let page = Page { shell: context.shell, changed, refusal, rows };
    render::page_as(page.refusal.status(), &page)
}

fn row(session: Session) -> Row {
    Row {
        browser: browser(&session.user_agent),
        id: session.id,
        current: session.current,
        network: session.network,
        used: ago(session.last_used_at),
        began: ago(session.created_at),
    }
}

/// A name that people know, where what the browser says holds one; else its own words.
fn browser(user_agent: &str) -> String {
    let known = [("Edg/", "Edge"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari")];
    let systems =
        [("Android", "Android"), ("iPhone", "iPhone"), ("Windows", "Windows"), ("Mac OS", "macOS"), ("Linux", "Linux")];
    let find = |table: &[(&str, &'static str)]| {
        table.iter().find(|(word, _)| user_agent.contains(word)).map(|(_, name)| *name)
    };
    match (find(&known), find(&systems)) {
        (Some(name), Some(system)) => format!("{name} on {system}"),
        (Some(name), None) => name.to_owned(),
        _ if user_agent.is_empty() => "Unknown browser".to_owned(),
        _ => user_agent.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_have_names_that_people_know() {
        let table = [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0", "Firefox on Linux"),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) Version/19 Safari/605", "Safari on macOS"),
            ("curl/8", "curl/8"),
            ("", "Unknown browser"),
        ];
        for (said, name) in table {
            assert_eq!(browser(said), name);
        }
    }
}
