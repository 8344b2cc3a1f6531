//! Nodes: single machines.

use super::deletion::Deletion;
use super::etag::Etag;
use super::{find, view};
use crate::auth::Actor;
use crate::auth::policy::Action;
use crate::error::Error;
use crate::extract::check_etag;
use crate::paging::Paging;
use crate::state::AppState;
use api_types::{List, Node};

/// The nodes of a cluster, without those that were removed.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn list(state: &AppState, actor: &Actor, cluster: &str, paging: &Paging) -> Result<List<Node>, Error> {
    let cluster = find::cluster(state, actor, cluster, Action::ReadNode).await?;
    let mut rows = state.store().nodes().list(cluster.organization, cluster.id).await?;
    rows.retain(|row| !row.removed);
    Ok(paging.cut(rows, |row| (row.id.uuid(), row.name.as_str()), view::node))
}

/// One node.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(state: &AppState, actor: &Actor, id: &str) -> Result<Node, Error> {
    find::node(state, actor, id, Action::ReadNode).await.map(view::node)
}

/// Requests a node's removal: its machine is ordered to reset, and its identity is rejected from then on.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`], [`Error::PreconditionFailed`].
pub async fn delete(state: &AppState, actor: &Actor, id: &str, how: Deletion<'_>) -> Result<Node, Error> {
    let action = if how.force { Action::ForceDeleteNode } else { Action::DeleteNode };
    let row = find::node(state, actor, id, action).await?;
    check_etag(how.if_match, &row.etag())?;
    let (nodes, organization) = (state.store().nodes(), row.organization);
    let row = match how.force {
        true => nodes.force_deletion(organization, row.id, actor.by()).await?,
        false => nodes.request_deletion(organization, row.id, actor.by()).await?,
    };
    Ok(view::node(row))
}
