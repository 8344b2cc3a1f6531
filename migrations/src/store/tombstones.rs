//! Tombstones: the one sign that a node was removed. A missing row is none, because a database that was restored misses rows as well.
//!
//! A tombstone is written before the machine is told, in the same transaction as whatever removes the node otherwise, and outlives the
//! node's row, its cluster and every certificate that either ever had. With the last node that a deleted cluster had, what its link
//! certificates are checked with is kept as long, so that a machine that was off meanwhile can still be told.

use std::collections::BTreeSet;

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, Select};
use tenant_controlplane::id::{ClusterId, NodeId};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Store, deletion};
use crate::changes::{Change, ChangeKind};
use crate::codec;
use crate::db::Tx;
use crate::entity::{cluster_pki, deleted_cluster, node, node_tombstone};
use crate::error::StoreError;
use crate::rows;
use crate::rows::tombstone::{DeletedCluster, Tombstone};

/// Tombstones; see [`Store::tombstones`].
#[derive(Clone, Copy)]
pub struct Tombstones<'a>(pub(super) &'a Store);

impl Tombstones<'_> {
    /// How long a tombstone is kept: longer than the longest certificate of a node lasts (30 days).
    pub const LIFE: Duration = Duration::days(45);

    /// As many nodes as may be removed from a cluster within 25 hours: beyond that no node is added, because its API servers are told each
    /// name, in one Secret of at most 1 MiB.
    pub const RECENT: u64 = 4000;

    /// The tombstone of a node; `None` when it was not removed, or nothing is known of it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn get(self, node: NodeId) -> Result<Option<Tombstone>, StoreError> {
        rows::maybe(node_tombstone::Entity::find_by_id(node.uuid()).one(self.0.db()).await?)
    }

    /// The names of a cluster's nodes that were removed within the last 25 hours: certificates in these names may still be good. At most
    /// [`Tombstones::RECENT`] and as many as the cluster had nodes since.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn recent(self, cluster: ClusterId) -> Result<BTreeSet<String>, StoreError> {
        let rows = recent(cluster.uuid()).all(self.0.db()).await?;
        Ok(rows.into_iter().map(|row| row.name).collect())
    }

    /// A cluster's removed nodes whose certificates may still be good, and that not every API server is known to refuse.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn unrefused(self, cluster: ClusterId) -> Result<Vec<Tombstone>, StoreError> {
        let open = recent(cluster.uuid()).filter(node_tombstone::Column::RefusedAt.is_null());
        rows::all(open.order_by_asc(node_tombstone::Column::Node).all(self.0.db()).await?)
    }

    /// The clusters and nodes that were seen to be refused since then.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn refused_since(self, since: OffsetDateTime) -> Result<BTreeSet<(ClusterId, NodeId)>, StoreError> {
        let rows = node_tombstone::Entity::find();
        let rows = rows.filter(node_tombstone::Column::RefusedAt.gte(codec::millis(since))).all(self.0.db()).await?;
        Ok(rows.into_iter().map(|row| (ClusterId::from_uuid(row.cluster), NodeId::from_uuid(row.node))).collect())
    }

    /// Notes that every API server was seen to refuse a removed node's certificates. Twice is once.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn mark_refused(self, node: NodeId) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        let row = tx.lock::<node_tombstone::Entity>(node.uuid()).await?;
        let Some(mut row) = row.filter(|row| row.refused_at.is_none()) else { return Ok(()) };
        tx.publish(Change {
            cluster: Some(ClusterId::from_uuid(row.cluster)),
            ..Change::of(ChangeKind::Node, row.node)
        });
        row.refused_at = Some(codec::millis(codec::now()));
        tx.save(row).await?;
        tx.commit().await
    }

    /// Writes that a node is removed: from then on its machine is told to reset itself. Twice is once.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a node.
    pub async fn write(self, node: NodeId) -> Result<(), StoreError> {
        if self.get(node).await?.is_some() {
            return Ok(());
        }
        let mut tx = self.0.begin().await?;
        let row = tx.lock::<node::Entity>(node.uuid()).await?.ok_or(StoreError::missing("node"))?;
        bury(&tx, &row).await?;
        tx.publish(deletion::node_change(&row));
        tx.commit().await
    }

    /// What is left of the deleted cluster with this label; `None` for every other.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn cluster(self, label: &str) -> Result<Option<DeletedCluster>, StoreError> {
        let Ok(cluster) = ClusterId::from_suffix(label) else { return Ok(None) };
        let row = deleted_cluster::Entity::find_by_id(cluster.uuid()).one(self.0.db()).await?;
        Ok(row.map(|row| DeletedCluster { cluster, link_trust_pem: row.link_trust }))
    }
}

/// The tombstones of a cluster's nodes whose certificates may still be good.
pub(super) fn recent(cluster: Uuid) -> Select<node_tombstone::Entity> {
    let since = codec::millis(codec::now() - deletion::DEPARTED);
    let rows = node_tombstone::Entity::find().filter(node_tombstone::Column::Cluster.eq(cluster));
    rows.filter(node_tombstone::Column::RemovedAt.gt(since))
}

fn until() -> i64 {
    codec::millis(codec::now() + Tombstones::LIFE)
}

/// Writes the tombstone of a locked node, unless it is there. A machine that never enrolled has nothing to be told.
pub(super) async fn bury(tx: &Tx, row: &node::Model) -> Result<(), StoreError> {
    if row.machine_fingerprint.is_none() || node_tombstone::Entity::find_by_id(row.id).one(tx).await?.is_some() {
        return Ok(());
    }
    let (removed_at, until) = (codec::millis(codec::now()), until());
    let tombstone = node_tombstone::Model {
        node: row.id,
        cluster: row.cluster,
        name: row.name.clone(),
        removed_at,
        refused_at: None,
        until,
    };
    Ok(tx.add(tombstone).await?)
}

/// Keeps what a deleted cluster's nodes prove with who they are, if it had any that may not know yet.
pub(super) async fn keep_trust(tx: &Tx, cluster: Uuid) -> Result<(), StoreError> {
    let nodes = node_tombstone::Entity::find().filter(node_tombstone::Column::Cluster.eq(cluster));
    let Some(pki) = cluster_pki::Entity::find_by_id(cluster).one(tx).await? else { return Ok(()) };
    if nodes.one(tx).await?.is_none() {
        return Ok(());
    }
    Ok(tx.add(deleted_cluster::Model { cluster, link_trust: pki.link_trust, until: until() }).await?)
}

/// Drops what has been kept long enough; gives the number of rows.
pub(super) async fn prune(store: &Store, now: OffsetDateTime) -> Result<u64, StoreError> {
    let now = codec::millis(now);
    let nodes = node_tombstone::Entity::delete_many().filter(node_tombstone::Column::Until.lte(now));
    let clusters = deleted_cluster::Entity::delete_many().filter(deleted_cluster::Column::Until.lte(now));
    Ok(nodes.exec(store.db()).await?.rows_affected + clusters.exec(store.db()).await?.rows_affected)
}
