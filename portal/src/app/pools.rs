//! Node pools: named groups of machines of one cluster.

use super::etag::Etag;
use super::organizations::taken;
use super::{find, local_machines, versions, view};
use crate::auth::Actor;
use crate::auth::policy::{self, Action};
use crate::config::LocalMachines;
use crate::error::Error;
use crate::extract::check_etag;
use crate::paging::Paging;
use crate::state::AppState;
use api_types::{CreateNodePool, List, NodePool, PatchNodePool};
use migrations::{FirstPool, NewPool, PoolKind};
use tenant_controlplane::id::OrganizationId;
use tenant_controlplane::name::PoolName;
use tenant_controlplane::version::KubernetesVersion;

/// The most machines of one pool.
pub const MOST_MACHINES: u32 = 20;
/// The most pools that a cluster begins with.
const MAX_FIRST_POOLS: usize = 20;

/// The node pools of a cluster.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn list(state: &AppState, actor: &Actor, cluster: &str, paging: &Paging) -> Result<List<NodePool>, Error> {
    let cluster = find::cluster(state, actor, cluster, Action::ReadNodePool).await?;
    let rows = state.store().pools().list(cluster.organization, cluster.id).await?;
    Ok(paging.cut(rows, |row| (row.id.uuid(), row.name.as_str()), view::pool))
}

/// One node pool.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(state: &AppState, actor: &Actor, id: &str) -> Result<NodePool, Error> {
    find::pool(state, actor, id, Action::ReadNodePool).await.map(view::pool)
}

/// Asks for a node pool.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Deleting`], [`Error::Invalid`], [`Error::NameTaken`],
/// [`Error::LocalMachinesRestricted`].
pub async fn create(state: &AppState, actor: &Actor, cluster: &str, input: CreateNodePool) -> Result<NodePool, Error> {
    let cluster = find::living_cluster(state, actor, cluster, creating(&input.kind)).await?;
    let FirstPool { name, kind, count, version } = checked(state, &input, cluster.spec.version)?;
    let (organization, actor) = (cluster.organization, actor.by());
    let new = NewPool { cluster: cluster.id, organization, name, kind, count, version, actor };
    let made = if kind == PoolKind::Local && local_machines::share_kernel(state) {
        local_machines::permit(state, cluster.organization).await?;
        state.store().pools().insert_sharing_kernel(new).await
    } else {
        state.store().pools().insert(new).await
    };
    made.map(view::pool).map_err(|error| taken(error, "node pool", &input.name))
}

/// The pools that a new cluster of this organization and version begins with. What is wrong with one is reported with its place in the list.
///
/// # Errors
/// [`Error::Forbidden`], [`Error::Invalid`], [`Error::LocalMachinesRestricted`].
pub(super) async fn first(
    state: &AppState,
    actor: &Actor,
    organization: OrganizationId,
    inputs: &[CreateNodePool],
    version: KubernetesVersion,
) -> Result<Vec<FirstPool>, Error> {
    if inputs.len() > MAX_FIRST_POOLS {
        let detail = format!("{} node pools are too many to begin with: at most {MAX_FIRST_POOLS}", inputs.len());
        return Err(Error::field("/node_pools", "OUT_OF_RANGE", detail));
    }
    let mut pools: Vec<FirstPool> = Vec::new();
    for (place, input) in inputs.iter().enumerate() {
        policy::authorize(actor, creating(&input.kind), organization)?;
        let pool =
            checked(state, input, version).and_then(|pool| match pools.iter().any(|other| other.name == pool.name) {
                false => Ok(pool),
                true => Err(Error::field("/name", "DUPLICATE", format!("`{}` is used by two node pools", pool.name))),
            });
        let pool = pool.map_err(|error| error.within(&format!("/node_pools/{place}")))?;
        if pool.kind == PoolKind::Local && local_machines::share_kernel(state) {
            local_machines::permit(state, organization).await?;
        }
        pools.push(pool);
    }
    Ok(pools)
}

/// The only place where text becomes a pool; `server` is the version of its cluster.
fn checked(state: &AppState, input: &CreateNodePool, server: KubernetesVersion) -> Result<FirstPool, Error> {
    let name = PoolName::parse(&input.name).map_err(|error| Error::field("/name", "INVALID_NAME", error))?;
    let kind = kind(state, &input.kind)?;
    let count = count(kind, input.count)?;
    let version = input.version.as_deref().map(|wanted| version(state, wanted, server)).transpose()?;
    Ok(FirstPool { name, kind, count, version })
}

/// A version on offer whose kubelets may join a control plane of `server`.
fn version(state: &AppState, wanted: &str, server: KubernetesVersion) -> Result<KubernetesVersion, Error> {
    let version = versions::parse(state, wanted)?;
    version.may_join(server).map_err(|error| Error::field("/version", "VERSION_SKEW", error))?;
    Ok(version)
}

/// Changes how many machines a pool has.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Deleting`], [`Error::Invalid`], [`Error::PreconditionFailed`].
pub async fn patch(
    state: &AppState,
    actor: &Actor,
    id: &str,
    if_match: Option<&str>,
    input: PatchNodePool,
) -> Result<NodePool, Error> {
    let row = find::pool(state, actor, id, Action::ReadNodePool).await?;
    policy::authorize(actor, changing(row.kind.as_str()), &row)?;
    if row.deletion_requested_at.is_some() {
        return Err(Error::Deleting { what: "node pool" });
    }
    check_etag(if_match, &row.etag())?;
    match input.count {
        Some(wanted) if wanted != row.count => {
            if row.kind == PoolKind::Local && wanted > row.count && local_machines::share_kernel(state) {
                local_machines::permit(state, row.organization).await?;
            }
            let count = count(row.kind, Some(wanted))?;
            Ok(view::pool(state.store().pools().set_count(row.organization, row.id, count, actor.by()).await?))
        }
        _ => Ok(view::pool(row)),
    }
}

/// Asks for a pool's end; its nodes go with it.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`], [`Error::PreconditionFailed`].
pub async fn delete(state: &AppState, actor: &Actor, id: &str, if_match: Option<&str>) -> Result<NodePool, Error> {
    let row = find::pool(state, actor, id, Action::DeleteNodePool).await?;
    check_etag(if_match, &row.etag())?;
    Ok(view::pool(state.store().pools().request_deletion(row.organization, row.id, actor.by()).await?))
}

/// What making a pool of this kind is; permission comes before the question whether there is such a kind.
fn creating(kind: &str) -> Action {
    if kind == PoolKind::Local.as_str() { Action::CreateLocalNodePool } else { Action::CreateNodePool }
}

/// What changing a pool of this kind is.
pub fn changing(kind: &str) -> Action {
    if kind == PoolKind::Local.as_str() { Action::ChangeLocalNodePool } else { Action::ChangeNodePool }
}

/// A kind this instance has.
fn kind(state: &AppState, word: &str) -> Result<PoolKind, Error> {
    let local = state.config().capabilities.local != LocalMachines::Off;
    match word {
        "byo" => Ok(PoolKind::Byo),
        "local" if local => Ok(PoolKind::Local),
        "local" => {
            let detail = "this instance cannot create local machines: choose byo and join your own machines";
            Err(Error::field("/kind", "KIND_UNAVAILABLE", detail))
        }
        other => {
            let choice = if local { "byo or local" } else { "byo" };
            let detail = format!("`{other}` is not a kind of node pool: choose {choice}");
            Err(Error::field("/kind", "UNKNOWN_VALUE", detail))
        }
    }
}

/// A count that fits the kind: machines of the user's own are counted by joining, not by asking.
fn count(kind: PoolKind, wanted: Option<u32>) -> Result<u32, Error> {
    match (kind, wanted) {
        (PoolKind::Byo, None | Some(0)) => Ok(0),
        (PoolKind::Byo, Some(_)) => {
            let detail = "a byo pool has no count: machines join it with a join token";
            Err(Error::field("/count", "NOT_APPLICABLE", detail))
        }
        (PoolKind::Local, None) => Ok(1),
        (PoolKind::Local, Some(count)) if count <= MOST_MACHINES => Ok(count),
        (PoolKind::Local, Some(count)) => {
            let detail = format!("{count} machines are out of range: choose 0 to {MOST_MACHINES}");
            Err(Error::field("/count", "OUT_OF_RANGE", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_fit_their_kind() {
        assert_eq!(count(PoolKind::Byo, None).unwrap(), 0);
        assert!(count(PoolKind::Byo, Some(2)).is_err());
        assert_eq!(count(PoolKind::Local, None).unwrap(), 1);
        assert_eq!(count(PoolKind::Local, Some(20)).unwrap(), 20);
        assert!(count(PoolKind::Local, Some(21)).unwrap_err().to_string().contains("0 to 20"));
    }
}
