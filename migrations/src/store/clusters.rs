//! Clusters: the portal writes specs, the provisioner reports, the gateway reads routes.

use std::collections::BTreeMap;

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::{ClusterId, OrganizationId, ProjectId};
use tenant_controlplane::name::ClusterName;
use tenant_controlplane::status::ClusterState;
use uuid::Uuid;

use super::intent::Intent;
use super::{Store, deletion, hosts, idempotency, pools, quotas, spares, users, work};
use crate::codec;
use crate::db::Tx;
use crate::entity::{cluster, cluster_pki, project};
use crate::error::StoreError;
use crate::rows::cluster::{Cluster, ClusterReport, NewCluster, Route};
use crate::rows::pool::{FirstPool, NewPool, NodePool};
use crate::rows::quota::Resource;
use crate::rows::work::WorkKind;
use crate::rows::{self, Actor, Page};

const WHAT: &str = "cluster";

/// Clusters; see [`Store::clusters`].
#[derive(Clone, Copy)]
pub struct Clusters<'a>(pub(super) &'a Store);

/// For people: every method takes the organization, and another one's cluster is not there.
impl Clusters<'_> {
    /// Creates a cluster: row, operation `cluster.create`, audit entry and due work. Where a standby cluster fits it becomes the cluster.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a project, [`StoreError::Conflict`] when the name is taken, [`StoreError::Quota`] when the
    /// organization has as many as it may.
    pub async fn insert(self, new: NewCluster) -> Result<Cluster, StoreError> {
        Ok(self.insert_with_pools(new, Vec::new()).await?.0)
    }

    /// The same with its first pools, in one transaction: all of them are there, or nothing.
    ///
    /// # Errors
    /// As [`Clusters::insert`] and [`super::pools::Pools::insert`].
    pub async fn insert_with_pools(
        self,
        new: NewCluster,
        first: Vec<FirstPool>,
    ) -> Result<(Cluster, Vec<NodePool>), StoreError> {
        let mut tx = self.0.begin().await?;
        let row = add(&mut tx, &new).await?;
        let (cluster, organization, actor) = (ClusterId::from_uuid(row.id), new.organization, new.actor);
        // All of them at once: a refusal counts none of the request's own as used.
        let nodes = first.iter().map(|pool| u64::from(pool.count)).sum();
        quotas::require(&tx, organization.uuid(), Resource::NodePools, first.len() as u64).await?;
        quotas::require(&tx, organization.uuid(), Resource::Nodes, nodes).await?;
        let mut pools = Vec::new();
        for FirstPool { name, kind, count, version } in first {
            let pool = NewPool { cluster, organization, name, kind, count, version, actor };
            pools.push(NodePool::try_from(pools::add(&mut tx, &pool).await?)?);
        }
        // Each pool has noted itself as what the request has made: it is the cluster.
        idempotency::made(&tx, &cluster.to_string()).await?;
        tx.commit().await?;
        Ok((Cluster::try_from(row)?, pools))
    }

    /// Clusters of an organization, or of one of its projects, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list(
        self,
        organization: OrganizationId,
        project: Option<ProjectId>,
        page: Page,
    ) -> Result<Vec<Cluster>, StoreError> {
        let mut query = cluster::Entity::find().filter(cluster::Column::Organization.eq(organization.uuid()));
        if let Some(project) = project {
            query = query.filter(cluster::Column::Project.eq(project.uuid()));
        }
        if let Some(after) = page.after {
            query = query.filter(cluster::Column::Id.gt(after));
        }
        rows::all(query.order_by_asc(cluster::Column::Id).limit(page.limit).all(self.0.db()).await?)
    }

    /// One cluster of an organization.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn get(self, organization: OrganizationId, id: ClusterId) -> Result<Cluster, StoreError> {
        rows::one(WHAT, owned(organization, id).one(self.0.db()).await?)
    }

    /// One cluster of a project by its name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn by_name(
        self,
        organization: OrganizationId,
        project: ProjectId,
        name: &ClusterName,
    ) -> Result<Cluster, StoreError> {
        let query = cluster::Entity::find().filter(cluster::Column::Organization.eq(organization.uuid()));
        let query = query.filter(cluster::Column::Project.eq(project.uuid()));
        rows::one(WHAT, query.filter(cluster::Column::Name.eq(name.as_str())).one(self.0.db()).await?)
    }

    /// Requests deletion of a cluster, with its pools and nodes. What was being made there is cancelled; asking again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn request_deletion(
        self,
        organization: OrganizationId,
        id: ClusterId,
        actor: Actor,
    ) -> Result<Cluster, StoreError> {
        self.delete(organization, id, actor, false).await
    }

    /// [`Clusters::request_deletion`], and nothing is waited for any more, neither by the cluster nor by its nodes: audit entry
    /// `cluster.force_delete`. Asking again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn force_deletion(
        self,
        organization: OrganizationId,
        id: ClusterId,
        actor: Actor,
    ) -> Result<Cluster, StoreError> {
        self.delete(organization, id, actor, true).await
    }

    async fn delete(
        self,
        organization: OrganizationId,
        id: ClusterId,
        actor: Actor,
        force: bool,
    ) -> Result<Cluster, StoreError> {
        let mut tx = self.0.begin().await?;
        let row = owned(organization, id).lock_exclusive().one(&tx).await?;
        let mut row = row.ok_or(StoreError::missing(WHAT))?;
        let (asked, force) = (row.deletion_requested_at.is_some(), force && !row.forced);
        if asked && !force {
            return Cluster::try_from(row);
        }
        let (target, name) = (id.to_string(), row.name.clone());
        row.updated_at = codec::millis(codec::now());
        if !asked {
            deletion::spread_from_cluster(&mut tx, row.id).await?;
            let request = intent(&organization, id, ("cluster.delete", &target, &name), actor);
            row.operation = Some(request.open(&mut tx).await?);
            row.deletion_requested_at = Some(row.updated_at);
            row.generation += 1;
        }
        if force {
            deletion::force_nodes_of(&mut tx, row.id).await?;
            intent(&organization, id, ("cluster.force_delete", &target, &name), actor).record(&tx).await?;
            row.forced = true;
        }
        work::make_due(&mut tx, WorkKind::Cluster, row.id).await?;
        save(tx, row).await
    }
}

/// For the provisioner and the gateway, which serve all organizations.
impl Clusters<'_> {
    /// One cluster.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn load(self, id: ClusterId) -> Result<Cluster, StoreError> {
        rows::one(WHAT, cluster::Entity::find_by_id(id.uuid()).one(self.0.db()).await?)
    }

    /// All clusters, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn all(self) -> Result<Vec<Cluster>, StoreError> {
        rows::all(cluster::Entity::find().order_by_asc(cluster::Column::Id).all(self.0.db()).await?)
    }

    /// Writes what was seen; when it is what is there, nothing is written and nobody woken.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn report(self, id: ClusterId, report: ClusterReport) -> Result<(), StoreError> {
        let tx = self.0.begin().await?;
        let before = tx.lock::<cluster::Entity>(id.uuid()).await?.ok_or(StoreError::missing(WHAT))?;
        let mut after = before.clone();
        after.observed_generation = report.observed_generation;
        after.state = report.state.to_string();
        after.state_message = report.state_message;
        after.conditions = codec::json("cluster conditions", &report.conditions)?;
        after.endpoint = report.endpoint;
        after.problem = codec::maybe_json("cluster problem", report.problem.as_ref())?;
        if before == after {
            return Ok(());
        }
        after.updated_at = codec::millis(codec::now());
        save(tx, after).await.map(|_| ())
    }

    /// Drops a cluster and every row under it, its keys first of all. Only after it was *seen* that nothing of it is left. One that is
    /// gone already is fine.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn purge(self, id: ClusterId) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        let Some(row) = tx.lock::<cluster::Entity>(id.uuid()).await? else { return Ok(()) };
        deletion::drop_cluster(&mut tx, &row).await?;
        tx.commit().await
    }

    /// Where every cluster is reached.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn all_routes(self) -> Result<Vec<Route>, StoreError> {
        let clusters = cluster::Entity::find().order_by_asc(cluster::Column::Id).all(self.0.db()).await?;
        let pki = cluster_pki::Entity::find().all(self.0.db()).await?.into_iter();
        let mut trust: BTreeMap<Uuid, String> = pki.map(|row| (row.cluster, row.link_trust)).collect();
        let routes = clusters.into_iter().map(|row| {
            let link_trust_pem = trust.remove(&row.id);
            Route { cluster: ClusterId::from_uuid(row.id), endpoint: row.endpoint, link_trust_pem }
        });
        Ok(routes.collect())
    }

    /// Where the cluster with this label is reached; `None` for anything that is no label of a cluster.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn route(self, label: &str) -> Result<Option<Route>, StoreError> {
        let Ok(cluster) = ClusterId::from_suffix(label) else { return Ok(None) };
        let row = cluster::Entity::find_by_id(cluster.uuid()).one(self.0.db()).await?;
        let Some(row) = row else { return Ok(None) };
        let pki = cluster_pki::Entity::find_by_id(cluster.uuid()).one(self.0.db()).await?;
        Ok(Some(Route { cluster, endpoint: row.endpoint, link_trust_pem: pki.map(|row| row.link_trust) }))
    }
}

fn owned(organization: OrganizationId, id: ClusterId) -> sea_orm::Select<cluster::Entity> {
    cluster::Entity::find_by_id(id.uuid()).filter(cluster::Column::Organization.eq(organization.uuid()))
}

async fn save(mut tx: Tx, row: cluster::Model) -> Result<Cluster, StoreError> {
    tx.publish(deletion::cluster_change(&row));
    tx.save(row.clone()).await?;
    tx.commit().await?;
    Cluster::try_from(row)
}

/// The action, its target and a detail for people.
fn intent<'a>(
    organization: &OrganizationId,
    id: ClusterId,
    (action, target, detail): (&'a str, &'a str, &'a str),
    actor: Actor,
) -> Intent<'a> {
    Intent { organization: organization.uuid(), cluster: Some(id.uuid()), action, target, detail, actor }
}

async fn add(tx: &mut Tx, new: &NewCluster) -> Result<cluster::Model, StoreError> {
    let project = project::Entity::find_by_id(new.project.uuid());
    let project = project.filter(project::Column::Organization.eq(new.organization.uuid())).one(tx).await?;
    project.ok_or(StoreError::missing("project"))?;
    quotas::require(tx, new.organization.uuid(), Resource::Clusters, 1).await?;
    let spare = spares::take(tx, new).await?;
    let id = ClusterId::from_uuid(spare.as_ref().map_or_else(Uuid::now_v7, |spare| spare.id));
    let target = id.to_string();
    let request = intent(&new.organization, id, ("cluster.create", &target, new.name.as_str()), new.actor);
    let operation = request.open(tx).await?;
    let (host, user_id) = match &spare {
        Some(spare) => (spare.host, spare.user_id),
        None => (hosts::emptiest(tx).await?, users::next(tx).await?),
    };
    let request = cluster::Model { user_id, ..row(new, id, (host, operation))? };
    let (is_new, row) = match spare {
        Some(spare) => (false, taken_over(spare, request)),
        None => (true, request),
    };
    let written = if is_new { tx.add(row.clone()).await } else { tx.change(row.clone()).await };
    let taken = || format!("the name `{}` is already used by another cluster of this project", new.name);
    written.map_err(|error| StoreError::taken(error, WHAT, taken))?;
    work::make_due(tx, WorkKind::Cluster, row.id).await?;
    tx.publish(deletion::cluster_change(&row));
    Ok(row)
}

fn row(new: &NewCluster, id: ClusterId, (host, operation): (Uuid, Uuid)) -> Result<cluster::Model, StoreError> {
    let now = codec::millis(codec::now());
    Ok(cluster::Model {
        id: id.uuid(),
        project: new.project.uuid(),
        organization: new.organization.uuid(),
        host,
        name: new.name.to_string(),
        spec: codec::json("cluster spec", &new.spec)?,
        generation: 1,
        observed_generation: 0,
        state: ClusterState::Pending.to_string(),
        state_message: "Queued".to_owned(),
        conditions: "[]".to_owned(),
        endpoint: None,
        problem: None,
        operation: Some(operation),
        deletion_requested_at: None,
        forced: false,
        delegated: false,
        created_at: now,
        updated_at: now,
        user_id: 0,
    })
}

/// A standby cluster as the requested cluster: another spec for the same row, so that what was observed of it stays true.
fn taken_over(spare: cluster::Model, request: cluster::Model) -> cluster::Model {
    let (generation, observed_generation) = (spare.generation + 1, spare.observed_generation);
    let (conditions, endpoint) = (spare.conditions, spare.endpoint);
    cluster::Model { generation, observed_generation, conditions, endpoint, ..request }
}

/// A locked cluster of an organization that is not to go; for whatever is put under it.
pub(super) async fn parent(tx: &Tx, organization: OrganizationId, id: ClusterId) -> Result<cluster::Model, StoreError> {
    let row = owned(organization, id).lock_exclusive().one(tx).await?.ok_or(StoreError::missing(WHAT))?;
    ensure_not_deleting(row)
}

/// Refuses a cluster that is to go.
pub(super) fn ensure_not_deleting(row: cluster::Model) -> Result<cluster::Model, StoreError> {
    match row.deletion_requested_at {
        None => Ok(row),
        Some(_) => Err(StoreError::conflict(WHAT, format!("the cluster `{}` is being deleted", row.name))),
    }
}
