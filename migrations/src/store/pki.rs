//! Clusters' certificates and keys: one sealed value per cluster, and the public part the gateway needs beside it.

use sea_orm::sea_query::OnConflict;
use sea_orm::{DbErr, EntityTrait, IntoActiveModel, SqlErr};
use tenant_controlplane::id::ClusterId;
use tenant_controlplane::pki::ClusterPki;

use super::Store;
use crate::changes::{Change, ChangeKind};
use crate::codec;
use crate::entity::cluster_pki;
use crate::error::StoreError;

pub(super) const WHAT: &str = "cluster certificates";

/// Certificates and keys; see [`Store::pki`].
#[derive(Clone, Copy)]
pub struct Pki<'a>(pub(super) &'a Store);

impl Pki<'_> {
    /// Keeps a cluster's first certificates and gives the ones that are kept: of several who come, all get the same.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster.
    pub async fn put_new(self, cluster: ClusterId, pki: &ClusterPki) -> Result<ClusterPki, StoreError> {
        let plain = pki.to_secret_json().map_err(|_| StoreError::Corrupt { what: WHAT })?;
        let sealed = self.0.kek().seal(&owner(cluster), plain.as_bytes())?;
        let row = cluster_pki::Model {
            cluster: cluster.uuid(),
            sealed,
            link_trust: pki.link.trust_pem(),
            created_at: codec::millis(codec::now()),
        };
        let mut tx = self.0.begin().await?;
        let there = OnConflict::column(cluster_pki::Column::Cluster).do_nothing().to_owned();
        match cluster_pki::Entity::insert(row.into_active_model()).on_conflict(there).exec_without_returning(&tx).await
        {
            Ok(_) | Err(DbErr::RecordNotInserted) => {}
            Err(error) => return Err(orphan(error)),
        }
        tx.publish(Change { cluster: Some(cluster), ..Change::of(ChangeKind::Cluster, cluster.uuid()) });
        tx.commit().await?;
        self.get(cluster).await?.ok_or(StoreError::missing("cluster"))
    }

    /// Puts other certificates and keys in the place of those that were `seen`, and gives the ones that are kept. When somebody else was
    /// there first nothing changes: of several who come, all get the same.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such a cluster or before its first certificates are kept, [`StoreError::Corrupt`] as
    /// [`Pki::get`].
    pub async fn replace(
        self,
        cluster: ClusterId,
        seen: &ClusterPki,
        new: &ClusterPki,
    ) -> Result<ClusterPki, StoreError> {
        let plain = new.to_secret_json().map_err(|_| StoreError::Corrupt { what: WHAT })?;
        let mut tx = self.0.begin().await?;
        let row = tx.lock::<cluster_pki::Entity>(cluster.uuid()).await?;
        let row = row.ok_or(StoreError::missing(WHAT))?;
        let kept = self.open(cluster, &row.sealed)?;
        if kept != *seen {
            return Ok(kept);
        }
        let sealed = self.0.kek().seal(&owner(cluster), plain.as_bytes())?;
        tx.save(cluster_pki::Model { sealed, link_trust: new.link.trust_pem(), ..row }).await?;
        tx.publish(Change { cluster: Some(cluster), ..Change::of(ChangeKind::Cluster, cluster.uuid()) });
        tx.commit().await?;
        Ok(new.clone())
    }

    /// A cluster's certificates and keys; `None` before they are made.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when they do not open with this key-encryption key.
    pub async fn get(self, cluster: ClusterId) -> Result<Option<ClusterPki>, StoreError> {
        let row = cluster_pki::Entity::find_by_id(cluster.uuid()).one(self.0.db()).await?;
        row.map(|row| self.open(cluster, &row.sealed)).transpose()
    }

    fn open(self, cluster: ClusterId, sealed: &[u8]) -> Result<ClusterPki, StoreError> {
        let corrupt = || StoreError::Corrupt { what: WHAT };
        let plain = self.0.kek().open(&owner(cluster), sealed).ok_or_else(corrupt)?;
        let text = std::str::from_utf8(&plain).map_err(|_| corrupt())?;
        ClusterPki::from_secret_json(text).map_err(|_| corrupt())
    }
}

pub(super) fn owner(cluster: ClusterId) -> String {
    format!("cluster_pki {cluster}")
}

pub(super) fn orphan(error: DbErr) -> StoreError {
    match error.sql_err() {
        Some(SqlErr::ForeignKeyConstraintViolation(_)) => StoreError::missing("cluster"),
        _ => error.into(),
    }
}
