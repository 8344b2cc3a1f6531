//! Kubeconfigs: which were issued, and whom the cluster should believe.
//!
//! The cluster's API servers believe a kubeconfig's own authority until it is revoked or has ended. Revoked is told only once each of them
//! was seen to refuse it. A kubeconfig from before there were such authorities has a role binding inside the cluster instead; it counts as
//! refused when that was seen to be gone.

use sea_orm::{ColumnTrait, Condition, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::{ClusterId, KubeconfigId, OrganizationId};
use tenant_controlplane::status::AccessRole;
use time::OffsetDateTime;
use uuid::Uuid;

use super::intent::Intent;
use super::{Store, authorities, clusters, pools, quotas, work};
use crate::changes::{Change, ChangeKind};
use crate::codec;
use crate::db::Tx;
use crate::entity::{cluster, kubeconfig, organization, project};
use crate::error::StoreError;
use crate::rows::kubeconfig::{ClusterPath, Kubeconfig, NewKubeconfig, Recipient};
use crate::rows::quota::Resource;
use crate::rows::work::WorkKind;
use crate::rows::{self, Actor};

const WHAT: &str = "kubeconfig";
/// How many living kubeconfigs a cluster may have: an API server names all their authorities in each handshake, some 60 bytes for each.
pub const PER_CLUSTER: u64 = 200;

/// How many of a cluster's credentials that have ended, of a kind, are listed.
pub const LISTED_ENDED: u64 = 200;

/// Kubeconfigs; see [`Store::kubeconfigs`].
#[derive(Clone, Copy)]
pub struct Kubeconfigs<'a>(pub(super) &'a Store);

/// For people: every method takes the organization, and another one's kubeconfig is not there.
impl Kubeconfigs<'_> {
    /// Writes down a kubeconfig, which is to be signed next ([`Kubeconfigs::certify`]): by the authority that was made ahead for it
    /// ([`Kubeconfigs::prepared_authority`]), where there is one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster, [`StoreError::Conflict`] when it is going or has [`PER_CLUSTER`] living ones,
    /// [`StoreError::Quota`] when the organization has as many as it may.
    pub async fn insert(self, new: NewKubeconfig) -> Result<Kubeconfig, StoreError> {
        self.insert_for(new, Recipient::ADMIN).await
    }

    /// The same, for somebody who may be less than an admin: what they get above `view` is remembered on the cluster.
    ///
    /// # Errors
    /// As [`Self::insert`]; [`StoreError::Restricted`] for more than `view` in a cluster with local machines that share the platform's
    /// kernel, also while those are being removed.
    pub async fn insert_for(self, new: NewKubeconfig, recipient: Recipient) -> Result<Kubeconfig, StoreError> {
        let mut tx = self.0.begin().await?;
        let parent = clusters::parent(&tx, new.organization, new.cluster).await?;
        within_limit(&tx, new.cluster).await?;
        quotas::require(&tx, new.organization.uuid(), Resource::Kubeconfigs, 1).await?;
        if new.role != AccessRole::View && !recipient.admin {
            delegate(&tx, parent, recipient).await?;
        }
        let prepared = authorities::take(&tx, new.cluster.uuid()).await?;
        let row = row(&new, prepared.unwrap_or_else(Uuid::now_v7));
        tx.add(row.clone()).await?;
        record(&mut tx, &row, ("kubeconfig.issue", new.actor)).await?;
        tx.commit().await?;
        Kubeconfig::try_from(row)
    }

    /// The kubeconfigs of a cluster, the oldest first: all that may be used, and the newest [`LISTED_ENDED`] of those that may not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster.
    pub async fn list(self, organization: OrganizationId, cluster: ClusterId) -> Result<Vec<Kubeconfig>, StoreError> {
        self.0.clusters().get(organization, cluster).await?;
        let mut found = of(cluster).filter(over().not()).all(self.0.db()).await?;
        let ended = kubeconfig::Entity::find().filter(kubeconfig::Column::Cluster.eq(cluster.uuid())).filter(over());
        let ended = ended.order_by_desc(kubeconfig::Column::Id).limit(LISTED_ENDED);
        found.extend(ended.all(self.0.db()).await?);
        found.sort_by_key(|row| row.id);
        rows::all(found)
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
        record(&mut tx, &row, ("kubeconfig.revoke", actor)).await?;
        work::make_due(&mut tx, WorkKind::Cluster, row.cluster).await?;
        authorities::delete(&tx, row.id).await?;
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

    /// Those of a cluster that were signed and are not yet known to work.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn unbound(self, cluster: ClusterId) -> Result<Vec<Kubeconfig>, StoreError> {
        let query = of(cluster).filter(over().not()).filter(kubeconfig::Column::Serial.is_not_null());
        rows::all(query.filter(kubeconfig::Column::Bound.eq(false)).all(self.0.db()).await?)
    }

    /// Those of a cluster that have an authority and have not ended, but for those whose refusal was seen: the API servers should believe
    /// what is not revoked of them, and nothing else.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn with_authority(self, cluster: ClusterId) -> Result<Vec<Kubeconfig>, StoreError> {
        let query = of(cluster).filter(kubeconfig::Column::Authority.is_not_null());
        let query = query.filter(kubeconfig::Column::RefusedAt.is_null());
        rows::all(query.filter(kubeconfig::Column::ExpiresAt.gt(codec::millis(codec::now()))).all(self.0.db()).await?)
    }

    /// Those of a cluster without an authority that are revoked or have ended, and whose binding is still to be deleted, or seen to be
    /// absent.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn revoked_unapplied(self, cluster: ClusterId) -> Result<Vec<Kubeconfig>, StoreError> {
        let query = of(cluster).filter(over()).filter(kubeconfig::Column::Authority.is_null());
        rows::all(query.filter(kubeconfig::Column::Released.eq(false)).all(self.0.db()).await?)
    }

    /// Those of all clusters that were signed and seen to be refused since `since`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn refused_since(self, since: OffsetDateTime) -> Result<Vec<Kubeconfig>, StoreError> {
        let query = kubeconfig::Entity::find().filter(kubeconfig::Column::RefusedAt.gte(codec::millis(since)));
        let query = query.filter(kubeconfig::Column::Serial.is_not_null());
        rows::all(query.order_by_asc(kubeconfig::Column::Id).all(self.0.db()).await?)
    }

    /// The names of the cluster, for the file.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn path(self, cluster: ClusterId) -> Result<ClusterPath, StoreError> {
        let cluster = self.0.clusters().load(cluster).await?;
        let (organization, project) = (cluster.organization.uuid(), cluster.project.uuid());
        let organization = organization::Entity::find_by_id(organization).one(self.0.db()).await?;
        let project = project::Entity::find_by_id(project).one(self.0.db()).await?;
        Ok(ClusterPath {
            organization: organization.ok_or(StoreError::missing("organization"))?.name,
            project: project.ok_or(StoreError::missing("project"))?.name,
            cluster: cluster.name,
        })
    }

    /// Notes what was signed, and makes the cluster due: its API servers are to believe the authority.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`] when it was revoked meanwhile or has been signed already.
    pub async fn certify(self, id: KubeconfigId, serial: &str, authority_pem: &str) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        let mut row = tx.lock::<kubeconfig::Entity>(id.uuid()).await?.ok_or(StoreError::missing(WHAT))?;
        if row.revoked_at.is_some() || row.serial.is_some() {
            return Err(StoreError::conflict(WHAT, "the kubeconfig is revoked or was signed already"));
        }
        (row.serial, row.authority) = (Some(serial.to_owned()), Some(authority_pem.to_owned()));
        authorities::delete(&tx, row.id).await?;
        work::make_due(&mut tx, WorkKind::Cluster, row.cluster).await?;
        tx.publish(change_of(&row));
        tx.save(row).await?;
        tx.commit().await
    }

    /// Notes that the cluster was seen to accept it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn mark_bound(self, id: KubeconfigId) -> Result<(), StoreError> {
        self.change(id, |row| row.bound = true).await
    }

    /// Notes that every API server of the cluster was seen to refuse it. What its holder left behind is to be listed
    /// ([`Kubeconfigs::unlisted`]).
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn mark_refused(self, id: KubeconfigId) -> Result<(), StoreError> {
        let now = codec::millis(codec::now());
        self.change(id, |row| {
            (row.bound, row.released) = (false, true);
            if row.revoked_at.is_some() && row.refused_at.is_none() {
                row.refused_at = Some(now);
                // Nobody had one that was never signed.
                row.unlisted = row.serial.is_some();
            }
        })
        .await
    }

    /// Those of a cluster that were seen to be refused, and of which is not known yet what their holder left behind.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn unlisted(self, cluster: ClusterId) -> Result<Vec<Kubeconfig>, StoreError> {
        rows::all(of(cluster).filter(kubeconfig::Column::Unlisted.eq(true)).all(self.0.db()).await?)
    }

    /// Notes what people should know after it was revoked; it is not final.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn set_left_behind(self, id: KubeconfigId, text: Option<&str>) -> Result<(), StoreError> {
        self.change(id, |row| row.left_behind = text.map(ToOwned::to_owned)).await
    }

    /// Notes what its holder left behind, once and for all.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn mark_listed(self, id: KubeconfigId, text: Option<&str>) -> Result<(), StoreError> {
        self.change(id, |row| (row.left_behind, row.unlisted) = (text.map(ToOwned::to_owned), false)).await
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
        tx.publish(change_of(&after));
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

/// Notes on a locked cluster that rights in it go to somebody below admin, for ever: they may leave other ways in behind.
async fn delegate(tx: &Tx, parent: cluster::Model, recipient: Recipient) -> Result<(), StoreError> {
    if recipient.shared_kernel && pools::has_local(tx, parent.id).await? {
        let message = format!(
            "the cluster `{}` has local machines, which share the kernel of the platform host: only admins and owners get \
             kubeconfigs above view there",
            parent.name
        );
        return Err(StoreError::Restricted { message });
    }
    if parent.delegated {
        return Ok(());
    }
    tx.save(cluster::Model { delegated: true, ..parent }).await
}

fn row(new: &NewKubeconfig, id: Uuid) -> kubeconfig::Model {
    kubeconfig::Model {
        id,
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
        authority: None,
        refused_at: None,
        left_behind: None,
        unlisted: false,
    }
}

/// Those that still stand for an authority in the API servers' bundle, or for a binding.
async fn within_limit(tx: &Tx, cluster: ClusterId) -> Result<(), StoreError> {
    let query = of(cluster).filter(kubeconfig::Column::RefusedAt.is_null());
    let living = query.filter(kubeconfig::Column::ExpiresAt.gt(codec::millis(codec::now()))).count(tx).await?;
    if living < PER_CLUSTER {
        return Ok(());
    }
    let message = format!("the cluster has reached the limit of {PER_CLUSTER} kubeconfigs: revoke unused ones");
    Err(StoreError::conflict(WHAT, message))
}

/// Audit entry and change.
async fn record(tx: &mut Tx, row: &kubeconfig::Model, (action, actor): (&str, Actor)) -> Result<(), StoreError> {
    let target = KubeconfigId::from_uuid(row.id).to_string();
    let (organization, cluster, detail) = (row.organization, Some(row.cluster), row.name.as_str());
    Intent { organization, cluster, action, target: &target, detail, actor }.record(tx).await?;
    tx.publish(change_of(row));
    Ok(())
}

fn change_of(row: &kubeconfig::Model) -> Change {
    Change::of(ChangeKind::Kubeconfig, row.id).within(row.organization, Some(row.cluster))
}
