//! Operations: how work gets on.

use super::{find, view};
use crate::auth::Actor;
use crate::auth::policy::{self, Action, Object};
use crate::error::Error;
use crate::paging::Paging;
use crate::state::AppState;
use api_types::{List, Operation};
use migrations::Page;
use std::time::Duration;

/// One operation; with a wait, its next end or the state when the time is over.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(state: &AppState, actor: &Actor, id: &str, wait: Duration) -> Result<Operation, Error> {
    let row = find::operation(state, actor, id).await?;
    if wait.is_zero() || row.is_finished() {
        return Ok(view::operation(row));
    }
    Ok(view::operation(state.store().operations().wait(row.organization, row.id, wait).await?))
}

/// The operations on one thing (its id as text), newest first.
///
/// # Errors
/// Errors of the store; an unknown target has no operations.
pub async fn list(state: &AppState, actor: &Actor, target: &str, paging: &Paging) -> Result<List<Operation>, Error> {
    policy::authorize(actor, Action::ReadAccount, Object::Account)?;
    let mut rows = Vec::new();
    for organization in actor.organizations() {
        let page = Page { after: paging.after, limit: paging.limit + 1 };
        rows.extend(state.store().operations().list(organization, target, page).await?);
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.id));
    Ok(paging.finish(rows, |row| row.id.uuid(), view::operation))
}
