//! Nodes: single machines, from the row that comes before the machine to the row that goes after it.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::{ClusterId, NodeId, NodePoolId, OrganizationId};
use tenant_controlplane::status::NodeState;
use time::OffsetDateTime;
use uuid::Uuid;

use super::intent::Intent;
use super::{Store, clusters, deletion, enroll, operations, pools, tombstones, work};
use crate::codec;
use crate::db::Tx;
use crate::entity::{cluster, node, node_pool};
use crate::error::{EnrollError, StoreError};
use crate::rows::node::{Enrolled, Enrollment, Node, NodeReport, NodeRoute, Standing};
use crate::rows::work::WorkKind;
use crate::rows::{self, Actor};

const WHAT: &str = "node";

/// Nodes; see [`Store::nodes`].
#[derive(Clone, Copy)]
pub struct Nodes<'a>(pub(super) &'a Store);

/// For people: every method takes the organization, and another one's node is not there.
impl Nodes<'_> {
    /// The nodes of a cluster, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster.
    pub async fn list(self, organization: OrganizationId, cluster: ClusterId) -> Result<Vec<Node>, StoreError> {
        self.0.clusters().get(organization, cluster).await?;
        self.of_cluster(cluster).await
    }

    /// One node of an organization.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn get(self, organization: OrganizationId, id: NodeId) -> Result<Node, StoreError> {
        rows::one(WHAT, owned(organization, id).one(self.0.db()).await?)
    }

    /// Requests removal of a node: operation `node.delete`, audit entry and due work. Asking again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn request_deletion(
        self,
        organization: OrganizationId,
        id: NodeId,
        actor: Actor,
    ) -> Result<Node, StoreError> {
        self.delete(organization, id, actor, false).await
    }

    /// [`Nodes::request_deletion`], and nothing is waited for any more: audit entry `node.force_delete`. Asking again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn force_deletion(
        self,
        organization: OrganizationId,
        id: NodeId,
        actor: Actor,
    ) -> Result<Node, StoreError> {
        self.delete(organization, id, actor, true).await
    }

    async fn delete(
        self,
        organization: OrganizationId,
        id: NodeId,
        actor: Actor,
        force: bool,
    ) -> Result<Node, StoreError> {
        let mut tx = self.0.begin().await?;
        let row = owned(organization, id).lock_exclusive().one(&tx).await?;
        let mut row = row.ok_or(StoreError::missing(WHAT))?;
        let (target, detail, cluster) = (id.to_string(), row.name.clone(), Some(row.cluster));
        let organization = row.organization;
        let intent = |action| Intent { organization, cluster, action, target: &target, detail: &detail, actor };
        if row.deletion_requested_at.is_none() {
            operations::supersede(&mut tx, deletion::on(&target), false).await?;
            row.operation = Some(intent("node.delete").open(&mut tx).await?);
            deletion::mark_node(&mut tx, &mut row).await?;
        }
        if force && !row.forced {
            intent("node.force_delete").record(&tx).await?;
            deletion::force_node(&mut tx, &mut row).await?;
        }
        tx.commit().await?;
        Node::try_from(row)
    }
}

/// For the provisioner and the gateway, which serve all organizations.
impl Nodes<'_> {
    /// One node.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn load(self, id: NodeId) -> Result<Node, StoreError> {
        rows::one(WHAT, node::Entity::find_by_id(id.uuid()).one(self.0.db()).await?)
    }

    /// The nodes of a cluster, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn of_cluster(self, cluster: ClusterId) -> Result<Vec<Node>, StoreError> {
        let query = node::Entity::find().filter(node::Column::Cluster.eq(cluster.uuid()));
        rows::all(query.order_by_asc(node::Column::Id).all(self.0.db()).await?)
    }

    /// The nodes of a pool, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn of_pool(self, pool: NodePoolId) -> Result<Vec<Node>, StoreError> {
        let query = node::Entity::find().filter(node::Column::Pool.eq(pool.uuid()));
        rows::all(query.order_by_asc(node::Column::Id).all(self.0.db()).await?)
    }

    /// Makes the row of a machine that a provider is to make next; its name is the pool's and five characters.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a pool; [`StoreError::Conflict`] when the pool or its cluster is going, the cluster's pod
    /// range is used up, or too many nodes were removed from it lately ([`tombstones::Tombstones::RECENT`]).
    pub async fn insert_for_pool(self, pool: NodePoolId) -> Result<Node, StoreError> {
        let mut tx = self.0.begin().await?;
        let pool = node_pool::Entity::find_by_id(pool.uuid()).one(&tx).await?;
        let pool = pools::ensure_not_deleting(pool.ok_or(StoreError::missing("node pool"))?)?;
        let parent = tx.lock::<cluster::Entity>(pool.cluster).await?.ok_or(StoreError::missing("cluster"))?;
        let parent = clusters::ensure_not_deleting(parent)?;
        let allocation = enroll::Allocation { cluster: &parent, pool: pool.id, state: NodeState::Pending };
        let row =
            enroll::add_node(&mut tx, &allocation, &format!("{}-", pool.name)).await.map_err(|error| match error {
                EnrollError::Store(error) => error,
                full => StoreError::conflict("cluster", full.to_string()),
            })?;
        tx.commit().await?;
        Node::try_from(row)
    }

    /// Lets a machine join: checks its token, binds the token to it, and gives its row, made now unless it was there. The same machine
    /// may ask again and gets the same node.
    ///
    /// # Errors
    /// [`EnrollError`] with a text for the person at the machine.
    pub async fn enroll(self, enrollment: Enrollment<'_>) -> Result<Enrolled, EnrollError> {
        enroll::enroll(self.0, enrollment).await
    }

    /// Writes what was seen; when it is what is there, nothing is written and nobody woken.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn report(self, id: NodeId, report: NodeReport) -> Result<(), StoreError> {
        self.change(id, |row| {
            row.state = report.state.to_string();
            row.state_message.clone_from(&report.state_message);
            row.problem = codec::maybe_json("node problem", report.problem.as_ref())?;
            if let Some(facts) = &report.facts {
                row.facts = codec::json("node facts", facts)?;
            }
            row.last_seen_at = report.last_seen_at.map(codec::millis).or(row.last_seen_at);
            Ok(())
        })
        .await
    }

    /// Records a heartbeat of a node. Publishes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn record_heartbeat(self, id: NodeId) -> Result<(), StoreError> {
        let now = codec::millis(codec::now());
        let row = node::Entity::update_many().col_expr(node::Column::LastSeenAt, Expr::value(now));
        row.filter(node::Column::Id.eq(id.uuid())).exec(self.0.db()).await?;
        Ok(())
    }

    /// What the gateway needs of a node of a cluster; `None` for one that is unknown there or removed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn route(self, cluster: ClusterId, id: NodeId) -> Result<Option<NodeRoute>, StoreError> {
        let query = node::Entity::find_by_id(id.uuid()).filter(node::Column::Cluster.eq(cluster.uuid()));
        let node: Option<Node> = rows::maybe(query.filter(node::Column::Removed.eq(false)).one(self.0.db()).await?)?;
        Ok(node.map(|node| NodeRoute { name: node.name, pod_cidr: node.pod_cidr }))
    }

    /// Writes until when the pods of a node that is to go may move away; a time that has come ends that.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_drain_end(self, id: NodeId, end: OffsetDateTime) -> Result<(), StoreError> {
        self.change(id, |row| {
            row.drain_ends_at = Some(codec::millis(end));
            Ok(())
        })
        .await
    }

    /// Shuts a node out for good and writes its tombstone; its row stays until [`Nodes::purge`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn mark_removed(self, id: NodeId) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        let mut row = tx.lock::<node::Entity>(id.uuid()).await?.ok_or(StoreError::missing(WHAT))?;
        tombstones::bury(&tx, &row).await?;
        if !row.removed {
            row.removed = true;
            row.updated_at = codec::millis(codec::now());
            tx.publish(deletion::node_change(&row));
            tx.save(row).await?;
        }
        tx.commit().await
    }

    /// Gives a node's configuration the generation `next`, if the one in force is still `seen`: of several who come, one succeeds. Wakes
    /// nobody.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn set_config(self, id: NodeId, (seen, next): (u64, u64), digest: &str) -> Result<bool, StoreError> {
        let number = |generation: u64| i64::try_from(generation).unwrap_or(i64::MAX);
        let row = node::Entity::update_many()
            .col_expr(node::Column::ConfigGeneration, Expr::value(number(next)))
            .col_expr(node::Column::ConfigDigest, Expr::value(digest));
        let row = row.filter(node::Column::Id.eq(id.uuid())).filter(node::Column::ConfigGeneration.eq(number(seen)));
        Ok(row.exec(self.0.db()).await?.rows_affected == 1)
    }

    /// Orders a node to register with Kubernetes anew.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn order_registration(self, id: NodeId) -> Result<(), StoreError> {
        let now = codec::millis(codec::now());
        self.change(id, |row| {
            row.registration = row.registration.saturating_add(1);
            row.registration_ordered_at = Some(now);
            Ok(())
        })
        .await
    }

    /// Which clusters there are, and which nodes that were not removed: for whoever has to find what must not go on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn standing(self) -> Result<Standing, StoreError> {
        let clusters = cluster::Entity::find().select_only().column(cluster::Column::Id);
        let clusters: Vec<Uuid> = clusters.into_tuple().all(self.0.db()).await?;
        let nodes = node::Entity::find().select_only().column(node::Column::Id);
        let nodes = nodes.filter(node::Column::Removed.eq(false)).into_tuple();
        let nodes: Vec<Uuid> = nodes.all(self.0.db()).await?;
        Ok(Standing {
            clusters: clusters.into_iter().map(ClusterId::from_uuid).collect(),
            nodes: nodes.into_iter().map(NodeId::from_uuid).collect(),
        })
    }

    /// The names of a cluster's nodes that were removed lately: certificates in these names may still be shown.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn removed_names(self, cluster: ClusterId) -> Result<Vec<String>, StoreError> {
        enroll::removed_names(self.0.db(), cluster.uuid()).await
    }

    /// Drops a node whose machine was *seen* to be gone, or that was told to reset. One that is gone already is fine.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn purge(self, id: NodeId) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        let Some(row) = tx.lock::<node::Entity>(id.uuid()).await? else { return Ok(()) };
        deletion::drop_node(&mut tx, &row).await?;
        tx.commit().await
    }

    /// Changes a row under its lock. Heartbeats alone are written quietly, everything else is news and makes the node due when its link
    /// changed.
    pub(super) async fn change(
        self,
        id: NodeId,
        edit: impl Fn(&mut node::Model) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        // Most reports say nothing new, and looking is free; a transaction that may write is not.
        let seen = node::Entity::find_by_id(id.uuid()).one(self.0.db()).await?.ok_or(StoreError::missing(WHAT))?;
        let mut edited = seen.clone();
        edit(&mut edited)?;
        if edited == seen {
            return Ok(());
        }
        let mut tx = self.0.begin().await?;
        let before = tx.lock::<node::Entity>(id.uuid()).await?.ok_or(StoreError::missing(WHAT))?;
        let mut after = before.clone();
        edit(&mut after)?;
        if before == after {
            return Ok(());
        }
        let heartbeat = node::Model { last_seen_at: after.last_seen_at, ..before.clone() } == after;
        if !heartbeat {
            after.updated_at = codec::millis(codec::now());
            tx.publish(deletion::node_change(&after));
        }
        if before.link_connected != after.link_connected {
            wake(&mut tx, &after).await?;
        }
        tx.save(after).await?;
        tx.commit().await
    }
}

pub(super) async fn wake(tx: &mut Tx, row: &node::Model) -> Result<(), StoreError> {
    work::make_due(tx, WorkKind::Node, row.id).await
}

fn owned(organization: OrganizationId, id: NodeId) -> sea_orm::Select<node::Entity> {
    node::Entity::find_by_id(id.uuid()).filter(node::Column::Organization.eq(organization.uuid()))
}

/// A row with everything that is the same for every new node.
pub(super) fn new_model(allocation: &enroll::Allocation<'_>, name: String, pod_cidr: String) -> node::Model {
    let now = codec::millis(codec::now());
    node::Model {
        id: Uuid::now_v7(),
        cluster: allocation.cluster.id,
        pool: allocation.pool,
        organization: allocation.cluster.organization,
        name,
        state: allocation.state.to_string(),
        state_message: "Queued".to_owned(),
        pod_cidr,
        machine_fingerprint: None,
        facts: "{}".to_owned(),
        link_connected: false,
        link_gateway: None,
        last_seen_at: None,
        removed: false,
        problem: None,
        operation: None,
        deletion_requested_at: None,
        forced: false,
        drain_ends_at: None,
        config_generation: 0,
        config_digest: String::new(),
        registration: 0,
        registration_ordered_at: None,
        created_at: now,
        updated_at: now,
    }
}
