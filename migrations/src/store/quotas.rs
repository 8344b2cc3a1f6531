//! Quotas: how many of each resource a tenant may have.
//!
//! A limit is the holder's own (table `quotas`), else the installation's (setting `limit.RESOURCE`), else built in. [`require`] asks
//! inside the transaction that inserts, and locks the holder's row first, so of two who come at once for the last place one waits.
//! Lock order: a cluster, then a pool, then the holder. The lock lets others refer to the row meanwhile (PostgreSQL's FOR NO KEY UPDATE).

use std::collections::BTreeMap;

use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{LockType, OnConflict};
use sea_orm::{ColumnTrait, Condition, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter, QuerySelect};
use tenant_controlplane::id::{OrganizationId, UserId};
use uuid::Uuid;

use super::audit::entry;
use super::intent::Intent;
use super::{Store, join_tokens, spares};
use crate::codec;
use crate::db::Tx;
use crate::entity::{
    api_token, cluster, join_token, kubeconfig, member, node, node_pool, organization, project, quota, setting, user,
};
use crate::error::StoreError;
use crate::rows::Actor;
use crate::rows::audit::NewAudit;
use crate::rows::organization::Role;
use crate::rows::pool::PoolKind;
use crate::rows::quota::{QuotaHolder, QuotaUse, Resource};

/// Quotas; see [`Store::quotas`].
#[derive(Clone, Copy)]
pub struct Quotas<'a>(pub(super) &'a Store);

impl Quotas<'_> {
    /// The largest limit that can be set.
    pub const MAX_LIMIT: u64 = 1_000_000;

    /// Every quota of a holder, in the order of [`Resource::ALL`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list(self, holder: QuotaHolder) -> Result<Vec<QuotaUse>, StoreError> {
        let personal = matches!(holder, QuotaHolder::Person(_));
        let mut quotas = Vec::new();
        for resource in Resource::ALL.iter().filter(|resource| resource.is_personal() == personal) {
            quotas.push(of(self.0.db(), holder.uuid(), *resource).await?);
        }
        Ok(quotas)
    }

    /// Sets a holder's limit. What is there already stays, also above it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a holder; [`StoreError::Conflict`] for a resource that the other kind of holder has, or a
    /// limit above a million.
    pub async fn set(
        self,
        holder: QuotaHolder,
        resource: Resource,
        limit: u64,
        actor: Actor,
    ) -> Result<QuotaUse, StoreError> {
        check(resource, limit)?;
        let tx = self.0.begin().await?;
        lock(&tx, holder, resource).await?;
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let row = quota::Model { holder: holder.uuid(), resource: resource.to_string(), most };
        let mut there = OnConflict::columns([quota::Column::Holder, quota::Column::Resource]);
        let there = there.update_column(quota::Column::Most).to_owned();
        quota::Entity::insert(row.into_active_model()).on_conflict(there).exec_without_returning(&tx).await?;
        record(&tx, holder, "quota.set", &format!("{resource} {limit}"), actor).await?;
        let quota = of(&tx, holder.uuid(), resource).await?;
        tx.commit().await?;
        Ok(quota)
    }

    /// Takes a holder's own limit back: the default holds again. One that has none is fine.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a holder; [`StoreError::Conflict`] for a resource that the other kind of holder has.
    pub async fn unset(self, holder: QuotaHolder, resource: Resource, actor: Actor) -> Result<QuotaUse, StoreError> {
        let tx = self.0.begin().await?;
        lock(&tx, holder, resource).await?;
        let own = quota::Entity::delete_by_id((holder.uuid(), resource.to_string()));
        if own.exec(&tx).await?.rows_affected > 0 {
            record(&tx, holder, "quota.unset", &resource.to_string(), actor).await?;
        }
        let quota = of(&tx, holder.uuid(), resource).await?;
        tx.commit().await?;
        Ok(quota)
    }

    /// Sets the limit of every holder that has none of its own.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] for a limit above a million.
    pub async fn set_default(self, resource: Resource, limit: u64, actor: Actor) -> Result<(), StoreError> {
        check(resource, limit)?;
        let (target, detail) = (resource.to_string(), limit.to_string());
        let tx = self.0.begin().await?;
        self.0.settings().put_within(&tx, &setting_key(resource), &detail).await?;
        let new = NewAudit { organization: None, actor, action: "quota.set_default", target: &target, detail: &detail };
        tx.audit(entry(new, None));
        tx.commit().await
    }

    /// The limit of every holder that has none of its own.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn default_of(self, resource: Resource) -> Result<u64, StoreError> {
        default_limit(self.0.db(), resource).await
    }
}

/// Refuses `more` of a resource beyond an organization's limit. The platform's own organization has none.
pub(super) async fn require(tx: &Tx, organization: Uuid, resource: Resource, more: u64) -> Result<(), StoreError> {
    if organization == spares::OWN || more == 0 {
        return Ok(());
    }
    lock_organization(tx, organization).await?;
    within(of(tx, organization, resource).await?, more)
}

/// The same for what a person holds.
pub(super) async fn require_of_person(tx: &Tx, person: UserId, resource: Resource) -> Result<(), StoreError> {
    lock_person(tx, person.uuid()).await?;
    within(of(tx, person.uuid(), resource).await?, 1)
}

fn within(quota: QuotaUse, wanted: u64) -> Result<(), StoreError> {
    if quota.used + wanted <= quota.limit { Ok(()) } else { Err(StoreError::Quota { quota, wanted }) }
}

fn check(resource: Resource, limit: u64) -> Result<(), StoreError> {
    if limit <= Quotas::MAX_LIMIT {
        return Ok(());
    }
    let (title, max) = (resource.title(), Quotas::MAX_LIMIT);
    Err(StoreError::conflict("quota", format!("{limit} {title} is out of range: choose 0 to {max}")))
}

/// Locks a holder who may have a limit of this resource.
async fn lock(tx: &Tx, holder: QuotaHolder, resource: Resource) -> Result<(), StoreError> {
    match holder {
        QuotaHolder::Organization(_) if resource.is_personal() => Err(misplaced(resource, "a person")),
        QuotaHolder::Person(_) if !resource.is_personal() => Err(misplaced(resource, "an organization")),
        QuotaHolder::Organization(id) => lock_organization(tx, id.uuid()).await,
        QuotaHolder::Person(id) => lock_person(tx, id.uuid()).await,
    }
}

/// Writes a change of a limit in the audit log.
async fn record(tx: &Tx, holder: QuotaHolder, action: &str, detail: &str, actor: Actor) -> Result<(), StoreError> {
    match holder {
        QuotaHolder::Organization(id) => {
            let (organization, target) = (id.uuid(), id.to_string());
            Intent { organization, cluster: None, action, target: &target, detail, actor }.record(tx).await
        }
        QuotaHolder::Person(id) => {
            let target = id.to_string();
            tx.audit(entry(NewAudit { organization: None, actor, action, target: &target, detail }, None));
            Ok(())
        }
    }
}

fn misplaced(resource: Resource, holder: &str) -> StoreError {
    StoreError::conflict("quota", format!("the quota of {} belongs to {holder}", resource.title()))
}

async fn lock_organization(tx: &Tx, id: Uuid) -> Result<(), StoreError> {
    let row = organization::Entity::find_by_id(id).lock(LockType::NoKeyUpdate).one(tx).await?;
    row.map(|_| ()).ok_or(StoreError::missing("organization"))
}

async fn lock_person(tx: &Tx, id: Uuid) -> Result<(), StoreError> {
    let row = user::Entity::find_by_id(id).lock(LockType::NoKeyUpdate).one(tx).await?;
    row.map(|_| ()).ok_or(StoreError::missing("user"))
}

async fn of(db: &impl ConnectionTrait, holder: Uuid, resource: Resource) -> Result<QuotaUse, StoreError> {
    let own = quota::Entity::find_by_id((holder, resource.to_string())).one(db).await?;
    let limit = match own {
        Some(row) => u64::try_from(row.most).unwrap_or_default(),
        None => default_limit(db, resource).await?,
    };
    Ok(QuotaUse { resource, used: used(db, holder, resource).await?, limit })
}

fn setting_key(resource: Resource) -> String {
    format!("limit.{resource}")
}

async fn default_limit(db: &impl ConnectionTrait, resource: Resource) -> Result<u64, StoreError> {
    let row = setting::Entity::find_by_id(setting_key(resource)).one(db).await?;
    let value = row.and_then(|row| row.value).and_then(|value| value.parse().ok());
    Ok(value.unwrap_or(resource.default_limit()))
}

async fn used(db: &impl ConnectionTrait, holder: Uuid, resource: Resource) -> Result<u64, StoreError> {
    let now = codec::millis(codec::now());
    let count = match resource {
        Resource::Clusters => cluster::Entity::find().filter(cluster::Column::Organization.eq(holder)).count(db).await,
        Resource::Nodes => return nodes(db, holder).await,
        Resource::NodePools => {
            node_pool::Entity::find().filter(node_pool::Column::Organization.eq(holder)).count(db).await
        }
        Resource::JoinTokens => join_token::Entity::find().filter(usable_token(holder)).count(db).await,
        Resource::Kubeconfigs => {
            let own = kubeconfig::Entity::find().filter(kubeconfig::Column::Organization.eq(holder));
            let valid = own.filter(kubeconfig::Column::RevokedAt.is_null());
            valid.filter(kubeconfig::Column::ExpiresAt.gt(now)).count(db).await
        }
        Resource::ApiTokens => {
            let own = api_token::Entity::find().filter(api_token::Column::Organization.eq(holder));
            let endless = Condition::any().add(api_token::Column::ExpiresAt.is_null());
            own.filter(endless.add(api_token::Column::ExpiresAt.gt(now))).count(db).await
        }
        Resource::Projects => project::Entity::find().filter(project::Column::Organization.eq(holder)).count(db).await,
        Resource::Organizations => {
            let own = member::Entity::find().filter(member::Column::User.eq(holder));
            own.filter(member::Column::Role.eq(Role::Owner.to_string())).count(db).await
        }
    };
    Ok(count?)
}

/// Tokens for one machine are the platform's: their nodes are counted.
fn usable_token(organization: Uuid) -> Condition {
    let own = Condition::all().add(join_token::Column::Organization.eq(organization));
    own.add(join_token::Column::Node.is_null()).add(join_tokens::usable())
}

/// The nodes there are, and for each pool of the platform's own machines those that it still asks for.
async fn nodes(db: &impl ConnectionTrait, organization: Uuid) -> Result<u64, StoreError> {
    let mine = node::Entity::find().filter(node::Column::Organization.eq(organization));
    let by_pool = mine.select_only().column(node::Column::Pool).column_as(node::Column::Id.count(), "there");
    let by_pool = by_pool.group_by(node::Column::Pool).into_tuple::<(Uuid, i64)>().all(db).await?;
    let mut there: BTreeMap<Uuid, i64> = by_pool.into_iter().collect();
    let pools = node_pool::Entity::find().filter(node_pool::Column::Organization.eq(organization));
    let asking = pools.filter(node_pool::Column::Kind.ne(PoolKind::Byo.to_string()));
    for pool in asking.filter(node_pool::Column::DeletionRequestedAt.is_null()).all(db).await? {
        let count = there.entry(pool.id).or_default();
        *count = Ord::max(pool.count, *count);
    }
    Ok(u64::try_from(there.values().sum::<i64>()).unwrap_or_default())
}

/// An organization as the holder of quotas.
impl From<OrganizationId> for QuotaHolder {
    fn from(id: OrganizationId) -> Self {
        Self::Organization(id)
    }
}
