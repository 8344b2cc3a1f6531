//! Node pools: the portal writes specs, the provisioner reports.

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::{ClusterId, NodePoolId, OrganizationId};
use tenant_controlplane::name::PoolName;
use tenant_controlplane::status::PoolState;
use uuid::Uuid;

use super::intent::Intent;
use super::{Store, clusters, deletion, operations, quotas, work};
use crate::codec;
use crate::db::Tx;
use crate::entity::{cluster, node, node_pool};
use crate::error::StoreError;
use crate::rows::pool::{NewPool, NodePool, PoolKind, PoolReport};
use crate::rows::quota::Resource;
use crate::rows::work::WorkKind;
use crate::rows::{self, Actor};

const WHAT: &str = "node pool";
/// The pool of machines that came without naming one.
const BYO: &str = "byo";

/// Node pools; see [`Store::pools`].
#[derive(Clone, Copy)]
pub struct Pools<'a>(pub(super) &'a Store);

/// For people: every method takes the organization, and another one's pool is not there.
impl Pools<'_> {
    /// Creates a pool: row, operation `node_pool.create`, audit entry and due work.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster, [`StoreError::Conflict`] when the name is taken or the cluster is going,
    /// [`StoreError::Quota`] when the organization has as many pools or nodes as it may.
    pub async fn insert(self, new: NewPool) -> Result<NodePool, StoreError> {
        let mut tx = self.0.begin().await?;
        clusters::parent(&tx, new.organization, new.cluster).await?;
        let row = add(&mut tx, &new).await?;
        tx.commit().await?;
        NodePool::try_from(row)
    }

    /// The same for local machines that share the platform's kernel: whoever may change workloads there can become root on it.
    ///
    /// # Errors
    /// As [`Self::insert`]; [`StoreError::Restricted`] in a cluster where somebody below admin ever had more than `view`.
    pub async fn insert_sharing_kernel(self, new: NewPool) -> Result<NodePool, StoreError> {
        let mut tx = self.0.begin().await?;
        let parent = clusters::parent(&tx, new.organization, new.cluster).await?;
        if parent.delegated {
            let message = format!(
                "the cluster `{}` cannot have local machines, which share the kernel of the platform host: somebody below the \
                 role admin was given a kubeconfig above view there, and may have left other ways in",
                parent.name
            );
            return Err(StoreError::Restricted { message });
        }
        let row = add(&mut tx, &new).await?;
        tx.commit().await?;
        NodePool::try_from(row)
    }

    /// The pool `byo` of a cluster, made if it is not there.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster, [`StoreError::Conflict`] when the cluster or the pool is going.
    pub async fn ensure_byo(
        self,
        organization: OrganizationId,
        cluster: ClusterId,
        actor: Actor,
    ) -> Result<NodePool, StoreError> {
        let mut tx = self.0.begin().await?;
        let parent = clusters::parent(&tx, organization, cluster).await?;
        let row = byo(&mut tx, &parent, actor).await?;
        tx.commit().await?;
        NodePool::try_from(row)
    }

    /// The pools of a cluster, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster.
    pub async fn list(self, organization: OrganizationId, cluster: ClusterId) -> Result<Vec<NodePool>, StoreError> {
        self.0.clusters().get(organization, cluster).await?;
        self.of_cluster(cluster).await
    }

    /// One pool of an organization.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn get(self, organization: OrganizationId, id: NodePoolId) -> Result<NodePool, StoreError> {
        rows::one(WHAT, owned(organization, id).one(self.0.db()).await?)
    }

    /// One pool of a cluster by its name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn by_name(
        self,
        organization: OrganizationId,
        cluster: ClusterId,
        name: &PoolName,
    ) -> Result<NodePool, StoreError> {
        let query = node_pool::Entity::find().filter(node_pool::Column::Organization.eq(organization.uuid()));
        let query = query.filter(node_pool::Column::Cluster.eq(cluster.uuid()));
        rows::one(WHAT, query.filter(node_pool::Column::Name.eq(name.as_str())).one(self.0.db()).await?)
    }

    /// Changes the number of machines: operation `node_pool.scale`, audit entry and due work. The present number changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's; [`StoreError::Conflict`] when the pool is going;
    /// [`StoreError::Quota`] when the organization may not have so many nodes.
    pub async fn set_count(
        self,
        organization: OrganizationId,
        id: NodePoolId,
        count: u32,
        actor: Actor,
    ) -> Result<NodePool, StoreError> {
        let mut tx = self.0.begin().await?;
        let mut row = ensure_not_deleting(locked(&tx, organization, id).await?)?;
        if row.count == i64::from(count) {
            return NodePool::try_from(row);
        }
        let more = u64::try_from(i64::from(count) - row.count).unwrap_or_default();
        quotas::require(&tx, row.organization, Resource::Nodes, more).await?;
        let target = id.to_string();
        operations::supersede(&mut tx, deletion::on(&target), false).await?;
        let detail = format!("{} from {} to {count}", row.name, row.count);
        row.operation = Some(intent(&row, ("node_pool.scale", &target, &detail), actor).open(&mut tx).await?);
        row.count = i64::from(count);
        row.generation += 1;
        row.updated_at = codec::millis(codec::now());
        work::make_due(&mut tx, WorkKind::NodePool, row.id).await?;
        save(tx, row).await
    }

    /// Requests deletion of a pool, with its nodes. Asking again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn request_deletion(
        self,
        organization: OrganizationId,
        id: NodePoolId,
        actor: Actor,
    ) -> Result<NodePool, StoreError> {
        let mut tx = self.0.begin().await?;
        let mut row = locked(&tx, organization, id).await?;
        if row.deletion_requested_at.is_some() {
            return NodePool::try_from(row);
        }
        let (target, name) = (id.to_string(), row.name.clone());
        operations::supersede(&mut tx, deletion::on(&target), false).await?;
        row.operation = Some(intent(&row, ("node_pool.delete", &target, &name), actor).open(&mut tx).await?);
        deletion::mark_pool(&mut tx, &mut row).await?;
        deletion::spread_to_nodes(&mut tx, node::Column::Pool.eq(row.id)).await?;
        tx.commit().await?;
        NodePool::try_from(row)
    }
}

/// For the provisioner, which serves all organizations.
impl Pools<'_> {
    /// One pool.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn load(self, id: NodePoolId) -> Result<NodePool, StoreError> {
        rows::one(WHAT, node_pool::Entity::find_by_id(id.uuid()).one(self.0.db()).await?)
    }

    /// The pools of a cluster, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn of_cluster(self, cluster: ClusterId) -> Result<Vec<NodePool>, StoreError> {
        let query = node_pool::Entity::find().filter(node_pool::Column::Cluster.eq(cluster.uuid()));
        rows::all(query.order_by_asc(node_pool::Column::Id).all(self.0.db()).await?)
    }

    /// Names of clusters with local machines that must not share the platform's kernel: those of an organization other than the
    /// installation's first, and those where somebody below admin ever had more than `view`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn unfit_to_share_kernel(self) -> Result<Vec<String>, StoreError> {
        let first = self.0.identity().first_organization().await?.map(|id| id.uuid());
        let local = node_pool::Entity::find().filter(node_pool::Column::Kind.eq(PoolKind::Local.to_string()));
        let clusters = local.all(self.0.db()).await?.into_iter().map(|pool| pool.cluster);
        let clusters = cluster::Entity::find().filter(cluster::Column::Id.is_in(clusters)).all(self.0.db()).await?;
        let unfit = clusters.into_iter().filter(|row| row.delegated || Some(row.organization) != first);
        Ok(unfit.map(|row| row.name).collect())
    }

    /// Writes what was seen; when it is what is there, nothing is written and nobody woken.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn report(self, id: NodePoolId, report: PoolReport) -> Result<(), StoreError> {
        let tx = self.0.begin().await?;
        let before = tx.lock::<node_pool::Entity>(id.uuid()).await?.ok_or(StoreError::missing(WHAT))?;
        let mut after = before.clone();
        after.observed_generation = report.observed_generation;
        after.state = report.state.to_string();
        after.state_message = report.state_message;
        after.problem = codec::maybe_json("node pool problem", report.problem.as_ref())?;
        if before == after {
            return Ok(());
        }
        after.updated_at = codec::millis(codec::now());
        save(tx, after).await.map(|_| ())
    }

    /// Drops a pool whose nodes are gone. One that is gone already is fine.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] while it has nodes.
    pub async fn purge(self, id: NodePoolId) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        let Some(row) = tx.lock::<node_pool::Entity>(id.uuid()).await? else { return Ok(()) };
        if node::Entity::find().filter(node::Column::Pool.eq(row.id)).one(&tx).await?.is_some() {
            return Err(StoreError::conflict("node", format!("the node pool `{}` still has nodes", row.name)));
        }
        deletion::drop_pool(&mut tx, &row).await?;
        work::make_due(&mut tx, WorkKind::Cluster, row.cluster).await?;
        tx.commit().await
    }
}

fn owned(organization: OrganizationId, id: NodePoolId) -> sea_orm::Select<node_pool::Entity> {
    node_pool::Entity::find_by_id(id.uuid()).filter(node_pool::Column::Organization.eq(organization.uuid()))
}

async fn locked(tx: &Tx, organization: OrganizationId, id: NodePoolId) -> Result<node_pool::Model, StoreError> {
    owned(organization, id).lock_exclusive().one(tx).await?.ok_or(StoreError::missing(WHAT))
}

/// Whether a cluster has pools of local machines, those that are being deleted among them.
pub(super) async fn has_local(tx: &Tx, cluster: Uuid) -> Result<bool, StoreError> {
    let query = node_pool::Entity::find().filter(node_pool::Column::Cluster.eq(cluster));
    Ok(query.filter(node_pool::Column::Kind.eq(PoolKind::Local.to_string())).one(tx).await?.is_some())
}

/// Refuses a pool that is to go.
pub(super) fn ensure_not_deleting(row: node_pool::Model) -> Result<node_pool::Model, StoreError> {
    match row.deletion_requested_at {
        None => Ok(row),
        Some(_) => Err(StoreError::conflict(WHAT, format!("the node pool `{}` is being deleted", row.name))),
    }
}

async fn save(mut tx: Tx, row: node_pool::Model) -> Result<NodePool, StoreError> {
    tx.publish(deletion::pool_change(&row));
    tx.save(row.clone()).await?;
    tx.commit().await?;
    NodePool::try_from(row)
}

/// The action, its target and a detail for people.
fn intent<'a>(
    row: &node_pool::Model,
    (action, target, detail): (&'a str, &'a str, &'a str),
    actor: Actor,
) -> Intent<'a> {
    Intent { organization: row.organization, cluster: Some(row.cluster), action, target, detail, actor }
}

/// Adds a pool to a locked cluster.
pub(super) async fn add(tx: &mut Tx, new: &NewPool) -> Result<node_pool::Model, StoreError> {
    quotas::require(tx, new.organization.uuid(), Resource::NodePools, 1).await?;
    quotas::require(tx, new.organization.uuid(), Resource::Nodes, u64::from(new.count)).await?;
    let mut row = row(new);
    let target = NodePoolId::from_uuid(row.id).to_string();
    let request = intent(&row, ("node_pool.create", &target, new.name.as_str()), new.actor);
    let operation = request.open(tx).await?;
    row.operation = Some(operation);
    let taken = || format!("the name `{}` is already used by another node pool of this cluster", new.name);
    tx.add(row.clone()).await.map_err(|error| StoreError::taken(error, WHAT, taken))?;
    work::make_due(tx, WorkKind::NodePool, row.id).await?;
    tx.publish(deletion::pool_change(&row));
    Ok(row)
}

fn row(new: &NewPool) -> node_pool::Model {
    let now = codec::millis(codec::now());
    node_pool::Model {
        id: Uuid::now_v7(),
        cluster: new.cluster.uuid(),
        organization: new.organization.uuid(),
        name: new.name.to_string(),
        kind: new.kind.to_string(),
        count: i64::from(new.count),
        version: new.version.map(|version| version.to_string()),
        generation: 1,
        observed_generation: 0,
        state: PoolState::Pending.to_string(),
        state_message: "Queued".to_owned(),
        problem: None,
        operation: None,
        deletion_requested_at: None,
        created_at: now,
        updated_at: now,
    }
}

/// The pool `byo` of a locked cluster, made if it is not there.
pub(super) async fn byo(tx: &mut Tx, parent: &cluster::Model, actor: Actor) -> Result<node_pool::Model, StoreError> {
    let query = node_pool::Entity::find().filter(node_pool::Column::Cluster.eq(parent.id));
    if let Some(row) = query.filter(node_pool::Column::Name.eq(BYO)).one(tx).await? {
        return ensure_not_deleting(row);
    }
    let name = PoolName::parse(BYO).map_err(|_| StoreError::Corrupt { what: "node pool name" })?;
    let (cluster, organization) = (ClusterId::from_uuid(parent.id), OrganizationId::from_uuid(parent.organization));
    add(tx, &NewPool { cluster, organization, name, kind: PoolKind::Byo, count: 0, version: None, actor }).await
}
