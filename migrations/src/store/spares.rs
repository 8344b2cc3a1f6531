//! Standby clusters, created before anybody requests one. They belong to the platform's own organization; nobody is a member of it, so nobody finds them.
//! A request for the same takes one over, in its own transaction: the row stays, with its id, its certificates and what runs under it.

use sea_orm::sea_query::{LockBehavior, LockType};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Select,
};
use tenant_controlplane::id::{ClusterId, OrganizationId, ProjectId};
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::standby;
use time::Duration;
use uuid::Uuid;

use super::{Store, operations};
use crate::codec;
use crate::db::Tx;
use crate::entity::{cluster, operation};
use crate::error::StoreError;
use crate::rows::cluster::{Cluster, NewCluster};
use crate::rows::{Actor, Page};

/// The id of the platform's own organization, and of its one project.
pub(crate) const OWN: Uuid = Uuid::from_u128(1);
/// How long a person waits for a cluster: one that takes longer holds up nothing any more.
const AWAITED: Duration = Duration::minutes(2);

/// Standby clusters; see [`Store::spares`].
#[derive(Clone, Copy)]
pub struct Spares<'a>(pub(super) &'a Store);

impl Spares<'_> {
    /// Creates one more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn begin(self, spec: ClusterSpec) -> Result<Cluster, StoreError> {
        // The random end of it.
        let name = format!("spare-{:08x}", Uuid::now_v7().as_u128() & 0xffff_ffff);
        let name = codec::word("cluster name", &name)?;
        let (organization, project) = (OrganizationId::from_uuid(OWN), ProjectId::from_uuid(OWN));
        self.0.clusters().insert(NewCluster { project, organization, name, spec, actor: Actor::System }).await
    }

    /// All of them, the oldest first, those that are to go among them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list(self) -> Result<Vec<Cluster>, StoreError> {
        self.0.clusters().list(OrganizationId::from_uuid(OWN), None, Page::default()).await
    }

    /// Requests deletion of one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also once it is somebody's.
    pub async fn discard(self, id: ClusterId) -> Result<(), StoreError> {
        self.0.clusters().request_deletion(OrganizationId::from_uuid(OWN), id, Actor::System).await.map(|_| ())
    }

    /// Whether somebody waits for a cluster, or requested one less than `calm` ago and will want machines: standby clusters can wait.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn are_in_the_way(self, calm: Duration) -> Result<bool, StoreError> {
        let now = codec::now();
        let requested = cluster::Entity::find().filter(cluster::Column::Organization.ne(OWN));
        let requested = requested.filter(cluster::Column::DeletionRequestedAt.is_null());
        let lacking = cluster::Column::ObservedGeneration.into_expr().lt(cluster::Column::Generation.into_expr());
        let awaited = lacking.and(cluster::Column::UpdatedAt.gt(codec::millis(now - AWAITED)));
        let young = cluster::Column::CreatedAt.gt(codec::millis(now - calm));
        let busy = requested.filter(Condition::any().add(awaited).add(young));
        Ok(busy.count(self.0.db()).await? > 0)
    }
}

/// Those that a request may take over.
fn sound() -> Select<cluster::Entity> {
    let own = cluster::Entity::find().filter(cluster::Column::Organization.eq(OWN));
    let states = standby::TAKEABLE.map(|state| state.to_string());
    own.filter(cluster::Column::DeletionRequestedAt.is_null()).filter(cluster::Column::State.is_in(states))
}

/// A locked standby cluster for that spec, the furthest one first; of several who come each gets its own. Its own operation ends.
pub(super) async fn take(tx: &mut Tx, new: &NewCluster) -> Result<Option<cluster::Model>, StoreError> {
    if new.organization.uuid() == OWN {
        return Ok(None);
    }
    let furthest = sound().order_by_desc(cluster::Column::ObservedGeneration).order_by_asc(cluster::Column::Id);
    for spare in furthest.all(tx).await? {
        if !standby::fits(&codec::from_json("cluster spec", &spare.spec)?, &new.spec) {
            continue;
        }
        let free = sound().filter(cluster::Column::Id.eq(spare.id));
        let free = free.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked).one(tx).await?;
        if let Some(row) = free {
            operations::supersede(tx, operation::Column::Cluster.eq(row.id), false).await?;
            return Ok(Some(row));
        }
    }
    Ok(None)
}
