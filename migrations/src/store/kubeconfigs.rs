//! Kubeconfigs: which were issued, and which the cluster should honour.
//!
//! The provisioner applies a role binding for each and deletes it when it is revoked or has ended. Such a one counts as unapplied until the
//! binding's absence was confirmed, whether or not its presence ever was: the provisioner may have died between applying and saying so.

use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::{ClusterId, KubeconfigId, OrganizationId};
use uuid::Uuid;

use super::intent::Intent;
use super::{Store, clusters, quotas, work};
use crate::changes::{Change, ChangeKind};
use crate::codec;
use crate::db::Tx;
use crate::entity::access::kubeconfig;
use crate::error::StoreError;
use crate::rows::access::{Kubeconfig, NewKubeconfig};
use crate::rows::quota::Resource;
use crate::rows::work::WorkKind;
use crate::rows::{self, Actor};

const WHAT: &str = "kubeconfig";

/// Kubeconfigs; see [`Store::kubeconfigs`].
#[derive(Clone, Copy)]
pub struct Kubeconfigs<'a>(pub(super) &'a Store);

/// For people: every method takes the organization, and another one's kubeconfig is not there.
impl Kubeconfigs<'_> {
    /// Writes down a kubeconfig and makes its cluster due.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster, [`StoreError::Conflict`] when it is going, [`StoreError::Quota`] when the
    /// organization has as many as it may.
    pub async fn insert(self, new: NewKubeconfig) -> Result<Kubeconfig, StoreError> {
        let mut tx = self.0.begin().await?;
        clusters::parent(&tx, new.organization, new.cluster).await?;
        quotas::require(&tx, new.organization.uuid(), Resource::Kubeconfigs, 1).await?;
        let row = row(&new);
        tx.add(row.clone()).await?;
        announce(&mut tx, &row, ("kubeconfig.issue", new.actor)).await?;
        tx.commit().await?;
        Kubeconfig::try_from(row)
    }

    /// The kubeconfigs of a cluster, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster.
    pub async fn list(self, organization: OrganizationId, cluster: ClusterId) -> Result<Vec<Kubeconfig>, StoreError> {
        self.0.clusters().get(organization, cluster).await?;
        rows::all(of(cluster).all(self.0.db()).await?)
    }

    /// One kubeconfig of an organization.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn get(self, organization: OrganizationId, id: KubeconfigId) -> Result<Kubeconfig, StoreError> {
        rows::one(WHAT, owned(organization, id).one(self.0.db()).await?)
    }

    /// Revokes a kubeconfig and makes its cluster due. Asking again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn revoke(self, organization: OrganizationId, id: KubeconfigId, actor: Actor) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        let row = owned(organization, id).lock_exclusive().one(&tx).await?;
        let mut row = row.ok_or(StoreError::missing(WHAT))?;
        if row.revoked_at.is_some() {
            return Ok(());
        }
        row.revoked_at = Some(codec::millis(codec::now()));
        announce(&mut tx, &row, ("kubeconfig.revoke", actor)).await?;
        tx.save(row).await?;
        tx.commit().await
    }
}

/// For the provisioner, which serves all organizations.
impl Kubeconfigs<'_> {
    /// One kubeconfig.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn load(self, id: KubeconfigId) -> Result<Kubeconfig, StoreError> {
        rows::one(WHAT, kubeconfig::Entity::find_by_id(id.uuid()).one(self.0.db()).await?)
    }

    /// Those of a cluster whose binding is still to be applied.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn unbound(self, cluster: ClusterId) -> Result<Vec<Kubeconfig>, StoreError> {
        let query = of(cluster).filter(over().not());
        rows::all(query.filter(kubeconfig::Column::Bound.eq(false)).all(self.0.db()).await?)
    }

    /// Those of a cluster that are revoked or have ended, and whose binding is still to be deleted, or seen to be absent.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn revoked_unapplied(self, cluster: ClusterId) -> Result<Vec<Kubeconfig>, StoreError> {
        let query = of(cluster).filter(over());
        rows::all(query.filter(kubeconfig::Column::Released.eq(false)).all(self.0.db()).await?)
    }

    /// Notes that the binding has been applied.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn mark_bound(self, id: KubeconfigId) -> Result<(), StoreError> {
        self.change(id, |row| row.bound = true).await
    }

    /// Notes that the binding of one that is revoked or has ended is absent.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn mark_unbound(self, id: KubeconfigId) -> Result<(), StoreError> {
        self.change(id, |row| (row.bound, row.released) = (false, true)).await
    }

    /// Notes the serial number of the issued certificate.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_serial(self, id: KubeconfigId, serial: &str) -> Result<(), StoreError> {
        self.change(id, |row| row.serial = Some(serial.to_owned())).await
    }

    async fn change(
        self,
        id: KubeconfigId,
        edit: impl FnOnce(&mut kubeconfig::Model) + Send,
    ) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        let before = tx.lock::<kubeconfig::Entity>(id.uuid()).await?.ok_or(StoreError::missing(WHAT))?;
        let mut after = before.clone();
        edit(&mut after);
        if before == after {
            return Ok(());
        }
        tx.tell(news(&after));
        tx.save(after).await?;
        tx.commit().await
    }
}

/// Nobody may use it any more: revoked, or past its time.
fn over() -> Condition {
    let now = codec::millis(codec::now());
    Condition::any().add(kubeconfig::Column::RevokedAt.is_not_null()).add(kubeconfig::Column::ExpiresAt.lte(now))
}

fn of(cluster: ClusterId) -> sea_orm::Select<kubeconfig::Entity> {
    let query = kubeconfig::Entity::find().filter(kubeconfig::Column::Cluster.eq(cluster.uuid()));
    query.order_by_asc(kubeconfig::Column::Id)
}

fn owned(organization: OrganizationId, id: KubeconfigId) -> sea_orm::Select<kubeconfig::Entity> {
    kubeconfig::Entity::find_by_id(id.uuid()).filter(kubeconfig::Column::Organization.eq(organization.uuid()))
}

fn row(new: &NewKubeconfig) -> kubeconfig::Model {
    kubeconfig::Model {
        id: Uuid::now_v7(),
        cluster: new.cluster.uuid(),
        organization: new.organization.uuid(),
        name: new.name.clone(),
        role: new.role.to_string(),
        kind: new.kind.to_string(),
        serial: None,
        expires_at: codec::millis(new.expires_at),
        revoked_at: None,
        bound: false,
        released: false,
        created_by: new.actor.to_string(),
        created_at: codec::millis(codec::now()),
    }
}

/// Audit entry, due work and news.
async fn announce(tx: &mut Tx, row: &kubeconfig::Model, (action, actor): (&str, Actor)) -> Result<(), StoreError> {
    let target = KubeconfigId::from_uuid(row.id).to_string();
    let (organization, cluster, detail) = (row.organization, Some(row.cluster), row.name.as_str());
    Intent { organization, cluster, action, target: &target, detail, actor }.record(tx).await?;
    tx.tell(news(row));
    work::make_due(tx, WorkKind::Cluster, row.cluster).await
}

fn news(row: &kubeconfig::Model) -> Change {
    Change::of(ChangeKind::Kubeconfig, row.id).within(row.organization, Some(row.cluster))
}
