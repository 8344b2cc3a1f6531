//! Clusters: create, list, show, delete.

use super::deletion::Deletion;
use super::etag::Etag;
use super::organizations::taken;
use super::{find, pools, versions, view};
use crate::auth::Actor;
use crate::auth::policy::Action;
use crate::error::Error;
use crate::extract::check_etag;
use crate::paging::Paging;
use crate::state::AppState;
use api_types::{Cluster, CreateCluster, List};
use migrations::{NewCluster, Page};
use tenant_controlplane::name::ClusterName;
use tenant_controlplane::spec::{ClusterSpec, SpecError};

/// The clusters of a project, oldest first.
///
/// # Errors
/// [`Error::NotFound`] for a project out of reach.
pub async fn list(state: &AppState, actor: &Actor, project: &str, paging: &Paging) -> Result<List<Cluster>, Error> {
    let project = find::project(state, actor, project, Action::ReadCluster).await?;
    let clusters = state.store().clusters();
    let rows = match paging.name.as_deref().map(ClusterName::parse) {
        Some(Ok(name)) => {
            let row = find::present(clusters.by_name(project.organization, project.id, &name).await)?;
            row.into_iter().filter(|row| paging.after.is_none_or(|after| row.id.uuid() > after)).collect()
        }
        Some(Err(_)) => Vec::new(),
        None => {
            let page = Page { after: paging.after, limit: paging.limit + 1 };
            clusters.list(project.organization, Some(project.id), page).await?
        }
    };
    Ok(paging.finish(rows, |row| row.id.uuid(), |row| view::cluster(state.config(), row)))
}

/// One cluster.
///
/// # Errors
/// [`Error::NotFound`].
pub async fn get(state: &AppState, actor: &Actor, id: &str) -> Result<Cluster, Error> {
    let row = find::cluster(state, actor, id, Action::ReadCluster).await?;
    Ok(view::cluster(state.config(), row))
}

/// Creates a cluster with its first pools: one intent, so that all of it is there, or nothing. It exists at once, in state `pending`; its
/// operation shows the progress.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`], [`Error::Invalid`], [`Error::NameTaken`], [`Error::QuotaReached`],
/// [`Error::LocalMachinesRestricted`].
pub async fn create(
    state: &AppState,
    actor: &Actor,
    project: &str,
    mut input: CreateCluster,
) -> Result<Cluster, Error> {
    let project = find::project(state, actor, project, Action::CreateCluster).await?;
    let given = input.name.clone();
    let name = ClusterName::parse(&given).map_err(|error| Error::field("/name", "INVALID_NAME", error))?;
    let first = std::mem::take(&mut input.node_pools);
    let spec = spec(state, input)?;
    let pools = pools::first(state, actor, project.organization, &first, spec.version).await?;
    let new = NewCluster { project: project.id, organization: project.organization, name, spec, actor: actor.by() };
    let made = state.store().clusters().insert_with_pools(new, pools).await;
    let (row, _) = made.map_err(|error| taken(error, "cluster", &given))?;
    Ok(view::cluster(state.config(), row))
}

/// Asks for a cluster's end: its nodes, volumes and certificates go with it. Asking twice is asking once.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Forbidden`], [`Error::PreconditionFailed`].
pub async fn delete(state: &AppState, actor: &Actor, id: &str, how: Deletion<'_>) -> Result<Cluster, Error> {
    let action = if how.force { Action::ForceDeleteCluster } else { Action::DeleteCluster };
    let row = find::cluster(state, actor, id, action).await?;
    check_etag(how.if_match, &row.etag())?;
    let (clusters, organization) = (state.store().clusters(), row.organization);
    let row = match how.force {
        true => clusters.force_deletion(organization, row.id, actor.by()).await?,
        false => clusters.request_deletion(organization, row.id, actor.by()).await?,
    };
    Ok(view::cluster(state.config(), row))
}

/// The only place where text becomes a [`ClusterSpec`].
fn spec(state: &AppState, input: CreateCluster) -> Result<ClusterSpec, Error> {
    let spec = ClusterSpec::new(versions::wanted(state, input.version.as_deref())?);
    let pods = network("/pod_cidr", input.pod_cidr.as_deref(), spec.pod_cidr)?;
    let services = network("/service_cidr", input.service_cidr.as_deref(), spec.service_cidr)?;
    let replicas = input.replicas.unwrap_or(spec.replicas);
    let spec = spec.with_networks(pods, services).and_then(|spec| spec.with_labels(input.labels));
    spec.and_then(|spec| spec.with_replicas(replicas)).map_err(|error| Error::field(pointer(&error), "INVALID", error))
}

fn pointer(error: &SpecError) -> &'static str {
    match error {
        SpecError::PodCidr(_) => "/pod_cidr",
        SpecError::ServiceCidr(_) | SpecError::Overlap { .. } => "/service_cidr",
        SpecError::Replicas(_) => "/replicas",
        SpecError::Labels => "/labels",
    }
}

fn network(pointer: &str, text: Option<&str>, default: ipnet::Ipv4Net) -> Result<ipnet::Ipv4Net, Error> {
    let Some(text) = text else { return Ok(default) };
    text.parse().map_err(|_| {
        let detail = format!("`{text}` is not an IPv4 CIDR: use the form {default}");
        Error::field(pointer, "INVALID_RANGE", detail)
    })
}
