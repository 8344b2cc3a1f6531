//! Ports of the gateway that lead to one cluster alone: each cluster gets one when somebody first asks for it, and keeps it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use tenant_controlplane::id::ClusterId;

use super::Store;
use crate::entity::cluster_port;
use crate::error::StoreError;

const WHAT: &str = "port";
/// Two who ask at once may choose the same port; the later one chooses again.
const TRIES: usize = 5;

/// Ports of clusters; see [`Store::cluster_ports`].
#[derive(Clone, Copy)]
pub struct ClusterPorts<'a>(pub(super) &'a Store);

impl ClusterPorts<'_> {
    /// The port of a cluster, chosen from `allowed` where it has none of these yet.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when all are taken, [`StoreError::NotFound`] without such a cluster.
    pub async fn allocate(self, cluster: ClusterId, allowed: &RangeInclusive<u16>) -> Result<u16, StoreError> {
        self.0.clusters().load(cluster).await?;
        for _ in 1..TRIES {
            match self.try_allocate(cluster, allowed).await {
                Err(StoreError::Conflict { message, .. }) if message == COLLISION => {}
                other => return other,
            }
        }
        self.try_allocate(cluster, allowed).await
    }

    async fn try_allocate(self, cluster: ClusterId, allowed: &RangeInclusive<u16>) -> Result<u16, StoreError> {
        let tx = self.0.begin().await?;
        let rows = cluster_port::Entity::find().all(&tx).await?;
        if let Some(own) = rows.iter().find(|row| row.cluster == cluster.uuid()) {
            let port = port(own.port)?;
            if allowed.contains(&port) {
                return Ok(port);
            }
            let old = cluster_port::Entity::delete_many().filter(cluster_port::Column::Cluster.eq(cluster.uuid()));
            old.exec(&tx).await?;
        }
        let taken: BTreeSet<i64> = rows.iter().map(|row| row.port).collect();
        let free = allowed.clone().find(|port| !taken.contains(&i64::from(*port)));
        let free =
            free.ok_or_else(|| StoreError::conflict(WHAT, "no port is available in the range set by the operator"))?;
        let row = cluster_port::Model { port: i64::from(free), cluster: cluster.uuid() };
        tx.add(row).await.map_err(|error| StoreError::taken(error, WHAT, || COLLISION.to_owned()))?;
        tx.commit().await?;
        Ok(free)
    }

    /// Every cluster that has a port.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn all(self) -> Result<Vec<(ClusterId, u16)>, StoreError> {
        let rows = cluster_port::Entity::find().order_by_asc(cluster_port::Column::Port).all(self.0.db()).await?;
        rows.into_iter().map(|row| Ok((ClusterId::from_uuid(row.cluster), port(row.port)?))).collect()
    }
}

const COLLISION: &str = "the port is used by another cluster";

fn port(number: i64) -> Result<u16, StoreError> {
    u16::try_from(number).map_err(|_| StoreError::Corrupt { what: "cluster port" })
}
