//! Deletion, both ends of it: requesting it for a row and everything under it, and dropping rows whose resources are gone.
//!
//! Everybody locks in the same order, cluster, pool, node, operation, so that two who meet do not wait for each other.
//!
//! A request marks the row and all rows under it in one transaction and makes each of them due, so that no reconciler has to tell another.

use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::{NodeId, NodePoolId};
use uuid::Uuid;

use super::{operations, tombstones, work};
use crate::changes::{Change, ChangeKind};
use crate::codec;
use crate::db::Tx;
use crate::entity::{cluster, departed_node, node, node_pool, operation};
use crate::error::StoreError;
use crate::rows::work::WorkKind;

/// The change of a cluster.
pub(super) fn cluster_change(row: &cluster::Model) -> Change {
    Change::of(ChangeKind::Cluster, row.id).within(row.organization, Some(row.id))
}

/// The change of a pool.
pub(super) fn pool_change(row: &node_pool::Model) -> Change {
    Change::of(ChangeKind::NodePool, row.id).within(row.organization, Some(row.cluster))
}

/// The change of a node.
pub(super) fn node_change(row: &node::Model) -> Change {
    Change::of(ChangeKind::Node, row.id).within(row.organization, Some(row.cluster))
}

/// Marks the pools and nodes under a cluster that is to go; what was being made there is overtaken.
pub(super) async fn spread_from_cluster(tx: &mut Tx, cluster: Uuid) -> Result<(), StoreError> {
    let pools = node_pool::Entity::find().filter(node_pool::Column::Cluster.eq(cluster));
    for mut row in pools.order_by_asc(node_pool::Column::Id).lock_exclusive().all(tx).await? {
        if row.deletion_requested_at.is_none() {
            mark_pool(tx, &mut row).await?;
        }
    }
    spread_to_nodes(tx, node::Column::Cluster.eq(cluster)).await?;
    operations::supersede(tx, operation::Column::Cluster.eq(cluster), false).await
}

/// Marks a locked pool as to go.
pub(super) async fn mark_pool(tx: &mut Tx, row: &mut node_pool::Model) -> Result<(), StoreError> {
    let now = codec::millis(codec::now());
    row.deletion_requested_at = Some(now);
    row.updated_at = now;
    row.generation += 1;
    tx.publish(pool_change(row));
    work::make_due(tx, WorkKind::NodePool, row.id).await?;
    tx.save(row.clone()).await
}

/// Marks the nodes that meet a condition.
pub(super) async fn spread_to_nodes(
    tx: &mut Tx,
    which: impl sea_orm::sea_query::IntoCondition,
) -> Result<(), StoreError> {
    for mut row in node::Entity::find().filter(which).order_by_asc(node::Column::Id).lock_exclusive().all(tx).await? {
        if row.deletion_requested_at.is_none() {
            mark_node(tx, &mut row).await?;
        }
    }
    Ok(())
}

/// Marks a locked node as to go.
pub(super) async fn mark_node(tx: &mut Tx, row: &mut node::Model) -> Result<(), StoreError> {
    let now = codec::millis(codec::now());
    row.deletion_requested_at = Some(now);
    row.updated_at = now;
    tx.publish(node_change(row));
    work::make_due(tx, WorkKind::Node, row.id).await?;
    tx.save(row.clone()).await
}

/// Marks a locked node, which is to go, as one for which nothing is waited any more.
pub(super) async fn force_node(tx: &mut Tx, row: &mut node::Model) -> Result<(), StoreError> {
    row.forced = true;
    row.updated_at = codec::millis(codec::now());
    tx.publish(node_change(row));
    work::make_due(tx, WorkKind::Node, row.id).await?;
    tx.save(row.clone()).await
}

/// The same for all nodes of a cluster.
pub(super) async fn force_nodes_of(tx: &mut Tx, cluster: Uuid) -> Result<(), StoreError> {
    let nodes = node::Entity::find().filter(node::Column::Cluster.eq(cluster)).order_by_asc(node::Column::Id);
    for mut row in nodes.lock_exclusive().all(tx).await? {
        force_node(tx, &mut row).await?;
    }
    Ok(())
}

/// Drops a cluster's row; the database drops all rows under it with it. What its nodes must still learn stays.
pub(super) async fn drop_cluster(tx: &mut Tx, row: &cluster::Model) -> Result<(), StoreError> {
    let pools = node_pool::Entity::find().filter(node_pool::Column::Cluster.eq(row.id));
    let pools = pools.order_by_asc(node_pool::Column::Id).lock_exclusive().all(tx).await?;
    let nodes = node::Entity::find().filter(node::Column::Cluster.eq(row.id));
    let nodes = nodes.order_by_asc(node::Column::Id).lock_exclusive().all(tx).await?;
    work::forget(tx, WorkKind::NodePool, pools.iter().map(|pool| pool.id).collect()).await?;
    work::forget(tx, WorkKind::Node, nodes.iter().map(|node| node.id).collect()).await?;
    work::forget(tx, WorkKind::Cluster, vec![row.id]).await?;
    operations::supersede(tx, operation::Column::Cluster.eq(row.id), true).await?;
    for node in &nodes {
        tombstones::bury(tx, node).await?;
    }
    tombstones::keep_trust(tx, row.id).await?;
    cluster::Entity::delete_by_id(row.id).exec(tx).await?;
    pools.iter().for_each(|pool| tx.publish(pool_change(pool)));
    nodes.iter().for_each(|node| tx.publish(node_change(node)));
    tx.publish(cluster_change(row));
    Ok(())
}

/// Drops an empty pool's row.
pub(super) async fn drop_pool(tx: &mut Tx, row: &node_pool::Model) -> Result<(), StoreError> {
    work::forget(tx, WorkKind::NodePool, vec![row.id]).await?;
    operations::supersede(tx, on(&NodePoolId::from_uuid(row.id).to_string()), true).await?;
    node_pool::Entity::delete_by_id(row.id).exec(tx).await?;
    tx.publish(pool_change(row));
    Ok(())
}

/// How long a removed node's name is given to nobody else, and a node of that name is not let in: longer than the longest certificate that
/// its cluster takes without asking.
pub(super) const DEPARTED: time::Duration = time::Duration::hours(25);

/// Remembers the name of a node that had certificates.
async fn remember(tx: &Tx, row: &node::Model) -> Result<(), StoreError> {
    if row.machine_fingerprint.is_none() {
        return Ok(());
    }
    let until = codec::millis(codec::now() + DEPARTED);
    let gone = departed_node::Model { cluster: row.cluster, name: row.name.clone(), until };
    departed_node::Entity::delete_by_id((row.cluster, row.name.clone())).exec(tx).await?;
    Ok(tx.add(gone).await?)
}

/// Drops a node's row. Its pool has to look whether it is one short.
pub(super) async fn drop_node(tx: &mut Tx, row: &node::Model) -> Result<(), StoreError> {
    remember(tx, row).await?;
    tombstones::bury(tx, row).await?;
    work::forget(tx, WorkKind::Node, vec![row.id]).await?;
    operations::supersede(tx, on(&NodeId::from_uuid(row.id).to_string()), true).await?;
    node::Entity::delete_by_id(row.id).exec(tx).await?;
    tx.publish(node_change(row));
    work::make_due(tx, WorkKind::NodePool, row.pool).await
}

/// The operations on one row.
pub(super) fn on(target: &str) -> Condition {
    Condition::all().add(operation::Column::Target.eq(target))
}
