//! Kubeconfig CAs that are prepared in advance: the API servers of a cluster trust the next one already, so that a file that is
//! signed by it works at once.
//!
//! Its id becomes the kubeconfig's. Its key is kept sealed until the one certificate it is there for is signed, and is deleted then.

use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tenant_controlplane::id::{ClusterId, KubeconfigId};
use tenant_controlplane::pki::Ca;
use time::Duration;
use uuid::Uuid;

use super::kubeconfigs::Kubeconfigs;
use super::pki::orphan;
use crate::codec;
use crate::db::Tx;
use crate::entity::kubeconfig_authority::{self, Column, Entity};
use crate::error::StoreError;

pub(super) const WHAT: &str = "kubeconfig authority";
/// How long after it was made an authority may be used: it has to outlive the longest kubeconfig.
const USABLE: Duration = Duration::days(30);
/// How long one that is taken is kept for the signature, which follows at once. A request that is broken off in between leaves it behind.
const UNSIGNED: Duration = Duration::minutes(2);

/// An authority that is kept for a kubeconfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedAuthority {
    /// The id of its kubeconfig, also before there is one.
    pub id: KubeconfigId,
    /// Its certificate, PEM.
    pub certificate: String,
    /// Whether there is a kubeconfig, which is to be signed next.
    pub taken: bool,
}

/// For the provisioner, which serves all organizations.
impl Kubeconfigs<'_> {
    /// The authorities kept for a cluster: its API servers should believe them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn prepared(self, cluster: ClusterId) -> Result<Vec<PreparedAuthority>, StoreError> {
        let rows = usable(cluster.uuid()).all(self.0.db()).await?;
        let prepared = |row: kubeconfig_authority::Model| PreparedAuthority {
            id: KubeconfigId::from_uuid(row.id),
            certificate: row.certificate,
            taken: row.taken,
        };
        Ok(rows.into_iter().map(prepared).collect())
    }

    /// Keeps an authority for the next kubeconfig of a cluster, and deletes those that are too old to be used or were never signed with.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster.
    pub async fn prepare(self, cluster: ClusterId, id: KubeconfigId, authority: &Ca) -> Result<(), StoreError> {
        let plain = serde_json::to_vec(authority).map_err(|_| StoreError::Corrupt { what: WHAT })?;
        let plain = zeroize::Zeroizing::new(plain);
        let row = kubeconfig_authority::Model {
            id: id.uuid(),
            cluster: cluster.uuid(),
            certificate: authority.cert_pem.clone(),
            sealed: self.0.kek().seal(&owner(id), &plain)?,
            taken: false,
            since: codec::millis(codec::now()),
        };
        let tx = self.0.begin().await?;
        Entity::delete_many().filter(Column::Cluster.eq(row.cluster)).filter(is_usable().not()).exec(&tx).await?;
        tx.add(row).await.map_err(orphan)?;
        tx.commit().await
    }

    /// The authority that was made ahead for a kubeconfig, with its key; none when there was none, or it has signed already.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it does not open with this key-encryption key.
    pub async fn prepared_authority(self, id: KubeconfigId) -> Result<Option<Ca>, StoreError> {
        let corrupt = || StoreError::Corrupt { what: WHAT };
        let Some(row) = Entity::find_by_id(id.uuid()).one(self.0.db()).await? else { return Ok(None) };
        let plain = self.0.kek().open(&owner(id), &row.sealed).ok_or_else(corrupt)?;
        serde_json::from_slice(&plain).map(Some).map_err(|_| corrupt())
    }
}

/// Takes the authority that is kept for the next kubeconfig of a cluster, and gives the id; none when there is none.
pub(super) async fn take(tx: &Tx, cluster: Uuid) -> Result<Option<Uuid>, StoreError> {
    let row = usable(cluster).filter(Column::Taken.eq(false)).lock_exclusive().one(tx).await?;
    let Some(row) = row else { return Ok(None) };
    let (id, since) = (row.id, codec::millis(codec::now()));
    tx.save(kubeconfig_authority::Model { taken: true, since, ..row }).await?;
    Ok(Some(id))
}

/// Deletes a kubeconfig's authority, and its key with it: it has signed, or never will.
pub(super) async fn delete(tx: &Tx, kubeconfig: Uuid) -> Result<(), StoreError> {
    Entity::delete_by_id(kubeconfig).exec(tx).await?;
    Ok(())
}

pub(super) fn owner(id: KubeconfigId) -> String {
    format!("kubeconfig_authority {id}")
}

fn usable(cluster: Uuid) -> sea_orm::Select<Entity> {
    Entity::find().filter(Column::Cluster.eq(cluster)).filter(is_usable()).order_by_asc(Column::Id)
}

fn is_usable() -> Condition {
    let after = |age: Duration| Column::Since.gt(codec::millis(codec::now() - age));
    let waits = Condition::all().add(Column::Taken.eq(false)).add(after(USABLE));
    Condition::any().add(waits).add(Condition::all().add(Column::Taken.eq(true)).add(after(UNSIGNED)))
}
