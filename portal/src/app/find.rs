//! From an id in a path to the row it names, within the caller's reach and with the permission asked for.
//!
//! The caller's organizations are tried in turn: every read of the store names the organization, so a row of another
//! one cannot be seen by mistake.

use crate::auth::Actor;
use crate::auth::policy::{self, Action};
use crate::error::Error;
use crate::state::AppState;
use migrations::{Cluster, Node, NodePool, Operation, Organization, Project, Role, StoreError};
use std::str::FromStr;
use tenant_controlplane::id::OrganizationId;

/// Reads a typed id; a text that is none names nothing.
pub(super) fn id<T: FromStr>(text: &str, what: &'static str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::NotFound { what })
}

/// "Not there" as `None`, so that the next organization can be tried.
pub(super) fn present<T>(read: Result<T, StoreError>) -> Result<Option<T>, Error> {
    match read {
        Ok(row) => Ok(Some(row)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Tries each organization of `$actor` until `$read` finds a row there, then asks for permission.
macro_rules! in_reach {
    ($actor:expr, $action:expr, $what:literal, |$organization:ident| $read:expr) => {{
        for $organization in $actor.organizations() {
            if let Some(row) = present($read.await)? {
                policy::authorize($actor, $action, &row)?;
                return Ok(row);
            }
        }
        Err(Error::NotFound { what: $what })
    }};
}

/// The organization of an id or name, with the role held there. Tenants may use the same name, so a person may meet two.
pub(super) fn organization<'a>(actor: &'a Actor, id_or_name: &str) -> Result<&'a (Organization, Role), Error> {
    let id = id_or_name.parse::<OrganizationId>().ok();
    let known = actor.memberships.iter();
    let found: Vec<_> = known.filter(|(known, _)| Some(known.id) == id || known.name.as_str() == id_or_name).collect();
    match found.as_slice() {
        [] => Err(Error::NotFound { what: "organization" }),
        [one] => Ok(*one),
        several => {
            let ids: Vec<String> = several.iter().map(|(known, _)| known.id.to_string()).collect();
            let detail = format!("`{id_or_name}` matches several organizations: use {}", ids.join(" or "));
            Err(Error::Malformed { detail })
        }
    }
}

/// The project of an id.
pub(super) async fn project(state: &AppState, actor: &Actor, text: &str, action: Action) -> Result<Project, Error> {
    let (id, identity) = (id(text, "project")?, state.store().identity());
    in_reach!(actor, action, "project", |organization| identity.project_of(organization, id))
}

/// The cluster of an id.
pub(super) async fn cluster(state: &AppState, actor: &Actor, text: &str, action: Action) -> Result<Cluster, Error> {
    let (id, clusters) = (id(text, "cluster")?, state.store().clusters());
    in_reach!(actor, action, "cluster", |organization| clusters.get(organization, id))
}

/// The cluster of an id, unless it is being deleted.
pub(super) async fn living_cluster(
    state: &AppState,
    actor: &Actor,
    text: &str,
    action: Action,
) -> Result<Cluster, Error> {
    let cluster = cluster(state, actor, text, action).await?;
    if cluster.deletion_requested_at.is_some() { Err(Error::Deleting { what: "cluster" }) } else { Ok(cluster) }
}

/// The node pool of an id.
pub(super) async fn pool(state: &AppState, actor: &Actor, text: &str, action: Action) -> Result<NodePool, Error> {
    let (id, pools) = (id(text, "node pool")?, state.store().pools());
    in_reach!(actor, action, "node pool", |organization| pools.get(organization, id))
}

/// The node of an id.
pub(super) async fn node(state: &AppState, actor: &Actor, text: &str, action: Action) -> Result<Node, Error> {
    let (id, nodes) = (id(text, "node")?, state.store().nodes());
    in_reach!(actor, action, "node", |organization| nodes.get(organization, id))
}

/// The operation of an id.
pub(super) async fn operation(state: &AppState, actor: &Actor, text: &str) -> Result<Operation, Error> {
    let (id, operations) = (id(text, "operation")?, state.store().operations());
    in_reach!(actor, Action::ReadOperation, "operation", |organization| operations.get(organization, id))
}
