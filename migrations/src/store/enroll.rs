//! Enrollment: from a join token to a node's row, in one transaction.
//!
//! The cluster's row is locked first, so of two machines that come at once one waits: names and pod ranges are handed out one by one. A
//! token is bound to the machines that used it by their fingerprints; the use stays when the node goes, which is how a machine that was
//! removed is known.

use std::collections::HashSet;

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter};
use tenant_controlplane::id::{JoinTokenId, NodeId};
use tenant_controlplane::node::allocation::{NAME_ENDING, free_name, lowest_free_range, requested_name};
use tenant_controlplane::spec::ClusterSpec;
use tenant_controlplane::status::NodeState;
use uuid::Uuid;

use super::intent::Intent;
use super::tombstones::{self, Tombstones};
use super::{Store, deletion, nodes, quotas, work};
use crate::codec;
use crate::db::Tx;
use crate::entity::{cluster, departed_node, join_token, join_token_use, node, node_pool};
use crate::error::{EnrollError, StoreError};
use crate::rows::Actor;
use crate::rows::node::{Enrolled, Enrollment, NodeInfo};
use crate::rows::quota::Resource;
use crate::rows::work::WorkKind;
use crate::secret;

/// Milliseconds after which a machine that enrolls again is written in the audit log again.
const REPEAT_NOTED_EVERY: i64 = 600_000;

/// Where a new node goes, and how it begins.
pub(super) struct Allocation<'a> {
    /// Its cluster, locked.
    pub cluster: &'a cluster::Model,
    /// Its pool.
    pub pool: Uuid,
    /// How it begins.
    pub state: NodeState,
}

pub(super) async fn enroll(store: &Store, enrollment: Enrollment<'_>) -> Result<Enrolled, EnrollError> {
    let id = secret::suffix_of(secret::JOIN_PREFIX, enrollment.token_secret);
    let id = id.and_then(|suffix| JoinTokenId::from_suffix(suffix).ok()).ok_or(EnrollError::Unknown)?;
    // Anybody may come with a made-up token, and only one transaction may write at a time.
    let seen = join_token::Entity::find_by_id(id.uuid()).one(store.db()).await?.ok_or(EnrollError::Unknown)?;
    if !secret::matches(enrollment.token_secret, &seen.hash) {
        return Err(EnrollError::Unknown);
    }
    let mut tx = store.begin().await?;
    let (cluster, token) = known(&tx, id, enrollment.token_secret).await?;
    if cluster.deletion_requested_at.is_some() {
        return Err(EnrollError::ClusterDeleting);
    }
    let pool = node_pool::Entity::find_by_id(token.pool).one(&tx).await?.ok_or(EnrollError::Unknown)?;
    if pool.deletion_requested_at.is_some() {
        return Err(EnrollError::PoolDeleting);
    }
    let used = join_token_use::Entity::find_by_id((token.id, enrollment.fingerprint.to_owned())).one(&tx).await?;
    let node = match used {
        Some(used) => again(&tx, &token, used).await?,
        None => first(&mut tx, (&cluster, &token), &enrollment).await?,
    };
    let node = describe(&mut tx, node, &enrollment.facts).await?;
    tx.commit().await?;
    let (node, cluster, pool) = (node.try_into()?, cluster.try_into()?, pool.try_into()?);
    Ok(Enrolled { node, cluster, pool })
}

/// The token and its cluster, both locked, the cluster first; only for the right secret.
async fn known(tx: &Tx, id: JoinTokenId, secret: &str) -> Result<(cluster::Model, join_token::Model), EnrollError> {
    let seen = join_token::Entity::find_by_id(id.uuid()).one(tx).await?.ok_or(EnrollError::Unknown)?;
    if !secret::matches(secret, &seen.hash) {
        return Err(EnrollError::Unknown);
    }
    let cluster = tx.lock::<cluster::Entity>(seen.cluster).await?.ok_or(EnrollError::Unknown)?;
    let token = tx.lock::<join_token::Entity>(seen.id).await?.ok_or(EnrollError::Unknown)?;
    Ok((cluster, token))
}

fn in_time(token: &join_token::Model) -> Result<(), EnrollError> {
    if token.revoked_at.is_some() {
        return Err(EnrollError::Revoked);
    }
    if token.expires_at <= codec::millis(codec::now()) {
        return Err(EnrollError::Expired);
    }
    Ok(())
}

/// The machine was here before with this token: the same node, if it is still wanted. It may come as often as it likes, so only what
/// comes after a while is written in the audit log.
async fn again(tx: &Tx, token: &join_token::Model, used: join_token_use::Model) -> Result<node::Model, EnrollError> {
    let node = wanted(tx, used.node).await?;
    in_time(token)?;
    let now = codec::millis(codec::now());
    if used.used_at + REPEAT_NOTED_EVERY < now {
        tx.save(join_token_use::Model { used_at: now, ..used }).await?;
        enrolled(tx, token, (&node, "again as ")).await?;
    }
    Ok(node)
}

/// The first time: takes a use of the token, and the node it was made for or a new one.
async fn first(
    tx: &mut Tx,
    (cluster, token): (&cluster::Model, &join_token::Model),
    enrollment: &Enrollment<'_>,
) -> Result<node::Model, EnrollError> {
    in_time(token)?;
    if token.uses >= token.max_uses {
        return Err(if token.max_uses == 1 { EnrollError::UsedElsewhere } else { EnrollError::UsedUp });
    }
    let mut node = match token.node {
        Some(node) => wanted(tx, node).await?,
        None => {
            quotas::require(tx, cluster.organization, Resource::Nodes, 1).await?;
            let allocation = Allocation { cluster, pool: token.pool, state: NodeState::Joining };
            let name = requested_name(enrollment.requested_name, enrollment.hostname);
            add_node(tx, &allocation, &name).await?
        }
    };
    node.machine_fingerprint = Some(enrollment.fingerprint.to_owned());
    node.state = NodeState::Joining.to_string();
    node.state_message = "Machine enrolled; installing Kubernetes".to_owned();
    bind(tx, token, &node).await?;
    Ok(node)
}

/// A locked node that nobody has removed.
async fn wanted(tx: &Tx, id: Uuid) -> Result<node::Model, EnrollError> {
    let node = tx.lock::<node::Entity>(id).await?;
    node.filter(|node| !node.removed && node.deletion_requested_at.is_none()).ok_or(EnrollError::Removed)
}

/// Counts the use, binds it to the machine, and writes it down.
async fn bind(tx: &Tx, token: &join_token::Model, node: &node::Model) -> Result<(), EnrollError> {
    let used = join_token_use::Model {
        token: token.id,
        fingerprint: node.machine_fingerprint.clone().unwrap_or_default(),
        node: node.id,
        used_at: codec::millis(codec::now()),
    };
    tx.add(used).await?;
    tx.save(join_token::Model { uses: token.uses + 1, ..token.clone() }).await?;
    enrolled(tx, token, (node, "")).await
}

async fn enrolled(tx: &Tx, token: &join_token::Model, (node, how): (&node::Model, &str)) -> Result<(), EnrollError> {
    let id = NodeId::from_uuid(node.id);
    let (target, detail) = (id.to_string(), format!("{how}{} with {}", node.name, JoinTokenId::from_uuid(token.id)));
    let (organization, cluster, actor) = (node.organization, Some(node.cluster), Actor::Node(id));
    let done = Intent { organization, cluster, action: "node.enroll", target: &target, detail: &detail, actor };
    Ok(done.record(tx).await?)
}

/// Writes what the machine says of itself, and makes node and pool due.
async fn describe(tx: &mut Tx, mut node: node::Model, facts: &NodeInfo) -> Result<node::Model, EnrollError> {
    node.facts = codec::json("node facts", facts)?;
    node.updated_at = codec::millis(codec::now());
    node.last_seen_at = Some(node.updated_at);
    tx.save(node.clone()).await?;
    work::make_due(tx, WorkKind::Node, node.id).await?;
    work::make_due(tx, WorkKind::NodePool, node.pool).await?;
    tx.publish(deletion::node_change(&node));
    Ok(node)
}

/// Adds a node to a locked cluster with the lowest free pod range, while one is free and not too many were removed lately. A requested name that ends
/// in `-` always gets an ending of its own, any other only when the name is taken.
pub(super) async fn add_node(
    tx: &mut Tx,
    allocation: &Allocation<'_>,
    requested: &str,
) -> Result<node::Model, EnrollError> {
    let others = node::Entity::find().filter(node::Column::Cluster.eq(allocation.cluster.id)).all(tx).await?;
    let spec: ClusterSpec = codec::from_json("cluster spec", &allocation.cluster.spec)?;
    let taken: HashSet<&str> = others.iter().map(|node| node.pod_cidr.as_str()).collect();
    let pod_cidr = lowest_free_range(spec.pod_cidr, &taken).ok_or(EnrollError::NoPodRangeLeft)?;
    if tombstones::recent(allocation.cluster.id).count(tx).await? >= Tombstones::RECENT {
        return Err(EnrollError::TooManyRemoved);
    }
    let removed_names = removed_names(tx, allocation.cluster.id).await?;
    let names: HashSet<&str> =
        others.iter().map(|node| node.name.as_str()).chain(removed_names.iter().map(String::as_str)).collect();
    let name = free_name(requested, &names, || secret::random_label(NAME_ENDING))?;
    let node = nodes::new_model(allocation, name, pod_cidr);
    tx.add(node.clone()).await?;
    work::make_due(tx, WorkKind::Node, node.id).await?;
    tx.publish(deletion::node_change(&node));
    Ok(node)
}

/// The names of nodes that were removed lately.
pub(super) async fn removed_names(db: &impl ConnectionTrait, cluster: Uuid) -> Result<Vec<String>, StoreError> {
    let query = departed_node::Entity::find().filter(departed_node::Column::Cluster.eq(cluster));
    let query = query.filter(departed_node::Column::Until.gt(codec::millis(codec::now())));
    Ok(query.all(db).await?.into_iter().map(|row| row.name).collect())
}
