//! Join tokens: what lets machines join.

use sea_orm::{ColumnTrait, Condition, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::{ClusterId, JoinTokenId, OrganizationId};
use uuid::Uuid;

use super::intent::Intent;
use super::kubeconfigs::LISTED_ENDED;
use super::{Store, clusters, pools, quotas};
use crate::changes::{Change, ChangeKind};
use crate::codec;
use crate::db::Tx;
use crate::entity::{cluster, join_token, node, node_pool};
use crate::error::StoreError;
use crate::rows::join_token::{JoinToken, NewJoinToken};
use crate::rows::quota::Resource;
use crate::rows::{self, Actor};
use crate::secret::{self, Secret};

const WHAT: &str = "join token";
/// How long a token that ended unused is still listed.
const KEPT: time::Duration = time::Duration::days(30);

/// Join tokens; see [`Store::join_tokens`].
#[derive(Clone, Copy)]
pub struct JoinTokens<'a>(pub(super) &'a Store);

impl JoinTokens<'_> {
    /// Makes a token. Its secret is given this once and is nowhere afterwards.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster, pool or node; [`StoreError::Conflict`] when one of them is going;
    /// [`StoreError::Quota`] when the organization has as many as it may.
    pub async fn create(self, new: NewJoinToken) -> Result<(JoinToken, Secret), StoreError> {
        let mut tx = self.0.begin().await?;
        let parent = clusters::parent(&tx, new.organization, new.cluster).await?;
        // A token for one machine is the platform's own; its node is counted.
        let counted = u64::from(new.node.is_none());
        quotas::require(&tx, parent.organization, Resource::JoinTokens, counted).await?;
        let pool = pool_for(&mut tx, &parent, &new).await?;
        check_node(&tx, pool, &new).await?;
        let id = JoinTokenId::from_uuid(Uuid::now_v7());
        let (secret, hash) = secret::mint(secret::JOIN_PREFIX, Some(&id.suffix()))?;
        let row = row(&new, (id, pool), hash);
        tx.add(row.clone()).await?;
        record(&tx, &row, ("join_token.create", new.actor)).await?;
        tx.publish(change_of(&row));
        tx.commit().await?;
        Ok((JoinToken::try_from(row)?, secret))
    }

    /// The tokens of a cluster, the oldest first: all that can be used, and the newest [`LISTED_ENDED`] of those that cannot.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster.
    pub async fn list(self, organization: OrganizationId, cluster: ClusterId) -> Result<Vec<JoinToken>, StoreError> {
        self.0.clusters().get(organization, cluster).await?;
        let of = || join_token::Entity::find().filter(join_token::Column::Cluster.eq(cluster.uuid()));
        let mut found = of().filter(usable()).all(self.0.db()).await?;
        let ended = of().filter(usable().not()).order_by_desc(join_token::Column::Id).limit(LISTED_ENDED);
        found.extend(ended.all(self.0.db()).await?);
        found.sort_by_key(|row| row.id);
        rows::all(found)
    }

    /// One token of an organization.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn get(self, organization: OrganizationId, id: JoinTokenId) -> Result<JoinToken, StoreError> {
        rows::one(WHAT, owned(organization, id).one(self.0.db()).await?)
    }

    /// Makes a token worth nothing; nodes that joined with it stay. Asking again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn revoke(self, organization: OrganizationId, id: JoinTokenId, actor: Actor) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        let row = owned(organization, id).lock_exclusive().one(&tx).await?;
        let mut row = row.ok_or(StoreError::missing(WHAT))?;
        if row.revoked_at.is_some() {
            return Ok(());
        }
        row.revoked_at = Some(codec::millis(codec::now()));
        record(&tx, &row, ("join_token.revoke", actor)).await?;
        tx.publish(change_of(&row));
        tx.save(row).await?;
        tx.commit().await
    }

    /// Drops tokens that ended a month ago without ever being used, and gives their number. A used one stays as long as its cluster:
    /// by it a machine that was removed is known.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn prune(self) -> Result<u64, StoreError> {
        let before = codec::millis(codec::now() - KEPT);
        let ended = Condition::any().add(join_token::Column::ExpiresAt.lte(before));
        let ended = ended.add(join_token::Column::RevokedAt.lte(before));
        let unused = join_token::Entity::delete_many().filter(join_token::Column::Uses.eq(0_i64)).filter(ended);
        Ok(unused.exec(self.0.db()).await?.rows_affected)
    }
}

async fn pool_for(tx: &mut Tx, parent: &cluster::Model, new: &NewJoinToken) -> Result<Uuid, StoreError> {
    let Some(pool) = new.pool else {
        return pools::byo(tx, parent, new.actor).await.map(|pool| pool.id);
    };
    let pool = node_pool::Entity::find_by_id(pool.uuid()).filter(node_pool::Column::Cluster.eq(parent.id));
    let pool = pool.one(tx).await?.ok_or(StoreError::missing("node pool"))?;
    pools::ensure_not_deleting(pool).map(|pool| pool.id)
}

/// A token for one machine is for one of its own pool.
async fn check_node(tx: &Tx, pool: Uuid, new: &NewJoinToken) -> Result<(), StoreError> {
    let Some(id) = new.node else { return Ok(()) };
    let node = node::Entity::find_by_id(id.uuid()).filter(node::Column::Pool.eq(pool)).one(tx).await?;
    node.map(|_| ()).ok_or(StoreError::missing("node"))
}

fn row(new: &NewJoinToken, (id, pool): (JoinTokenId, Uuid), hash: String) -> join_token::Model {
    join_token::Model {
        id: id.uuid(),
        cluster: new.cluster.uuid(),
        pool,
        organization: new.organization.uuid(),
        node: new.node.map(|node| node.uuid()),
        hash,
        expires_at: codec::millis(new.expires_at),
        max_uses: i64::from(new.max_uses),
        uses: 0,
        revoked_at: None,
        created_at: codec::millis(codec::now()),
    }
}

async fn record(tx: &Tx, row: &join_token::Model, (action, actor): (&str, Actor)) -> Result<(), StoreError> {
    let (target, detail) = (JoinTokenId::from_uuid(row.id).to_string(), ClusterId::from_uuid(row.cluster).to_string());
    let (organization, cluster) = (row.organization, Some(row.cluster));
    Intent { organization, cluster, action, target: &target, detail: &detail, actor }.record(tx).await
}

fn change_of(row: &join_token::Model) -> Change {
    Change::of(ChangeKind::JoinToken, row.id).within(row.organization, Some(row.cluster))
}

/// Those that a machine can join with.
pub(super) fn usable() -> Condition {
    let left = join_token::Column::Uses.into_expr().lt(join_token::Column::MaxUses.into_expr());
    let known = Condition::all().add(join_token::Column::RevokedAt.is_null()).add(left);
    known.add(join_token::Column::ExpiresAt.gt(codec::millis(codec::now())))
}

fn owned(organization: OrganizationId, id: JoinTokenId) -> sea_orm::Select<join_token::Entity> {
    join_token::Entity::find_by_id(id.uuid()).filter(join_token::Column::Organization.eq(organization.uuid()))
}
