//! Gateways that run, and which node's link is at which of them.
//!
//! A gateway is a process: its id is never used again, so a link that names it is cleared for it and for nobody who came after. A row lasts
//! until its lease ends; whoever starts or is alive then clears the links of what ended.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect};
use tenant_controlplane::id::{ClusterId, NodeId};
use uuid::Uuid;

use super::Store;
use crate::codec;
use crate::entity::{gateway, node};
use crate::error::StoreError;
use crate::rows::gateway::{GatewayInfo, LinkedNode};

/// Gateways; see [`Store::gateways`].
#[derive(Clone, Copy)]
pub struct Gateways<'a>(pub(super) &'a Store);

impl Gateways<'_> {
    /// Makes a gateway known for `lease` from now on. What ran earlier of its instance has ended and is forgotten; its links are until
    /// [`Gateways::sweep`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn start(self, info: &GatewayInfo, lease: Duration) -> Result<(), StoreError> {
        let (now, tx) = (codec::now(), self.0.begin().await?);
        let ended = gateway::Entity::delete_many().filter(gateway::Column::Instance.eq(info.instance));
        ended.exec(&tx).await?;
        let row = gateway::Model {
            id: info.id,
            instance: info.instance,
            address: info.address.to_string(),
            started_at: codec::millis(now),
            expires_at: codec::millis(now + lease),
        };
        gateway::Entity::insert(row.into_active_model()).exec_without_returning(&tx).await?;
        tx.commit().await
    }

    /// Makes a gateway's lease last from now on again; false when its row is gone, so that it must start anew.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn renew(self, id: Uuid, lease: Duration) -> Result<bool, StoreError> {
        let until = codec::millis(codec::now() + lease);
        let renewed = gateway::Entity::update_many().col_expr(gateway::Column::ExpiresAt, Expr::value(until));
        Ok(renewed.filter(gateway::Column::Id.eq(id)).exec(self.0.db()).await?.rows_affected == 1)
    }

    /// Forgets a gateway that ends, and the links that are at it still.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn stop(self, id: Uuid) -> Result<(), StoreError> {
        gateway::Entity::delete_by_id(id).exec(self.0.db()).await?;
        self.sweep().await.map(drop)
    }

    /// Forgets gateways whose lease has ended, notes of each link that is at none that is alive that it is down, and gives the number of
    /// these links.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn sweep(self) -> Result<u64, StoreError> {
        let now = codec::millis(codec::now());
        // Looking is free, a statement that writes is not.
        let ended = gateway::Entity::find().filter(gateway::Column::ExpiresAt.lte(now)).one(self.0.db()).await?;
        if ended.is_some() {
            let ended = gateway::Entity::delete_many().filter(gateway::Column::ExpiresAt.lte(now));
            ended.exec(self.0.db()).await?;
        }
        let alive: Vec<Uuid> = self.alive().await?.into_keys().collect();
        let nowhere =
            Condition::any().add(node::Column::LinkGateway.is_null()).add(node::Column::LinkGateway.is_not_in(alive));
        let left = node::Entity::find().filter(node::Column::LinkConnected.eq(true)).filter(nowhere);
        let mut cleared = 0;
        for row in left.all(self.0.db()).await? {
            cleared += u64::from(self.0.nodes().clear_link(NodeId::from_uuid(row.id), row.link_gateway).await?);
        }
        Ok(cleared)
    }

    /// The nodes whose link is at this gateway, as far as is known here, with their clusters.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn links(self, id: Uuid) -> Result<Vec<(ClusterId, NodeId)>, StoreError> {
        let found = node::Entity::find().select_only().columns([node::Column::Cluster, node::Column::Id]);
        let found: Vec<(Uuid, Uuid)> =
            found.filter(node::Column::LinkGateway.eq(id)).into_tuple().all(self.0.db()).await?;
        let typed = |(cluster, node)| (ClusterId::from_uuid(cluster), NodeId::from_uuid(node));
        Ok(found.into_iter().map(typed).collect())
    }

    /// The nodes of a cluster whose link is at a living gateway other than this one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn links_elsewhere(self, cluster: ClusterId, own: Uuid) -> Result<Vec<LinkedNode>, StoreError> {
        let linked = node::Entity::find().filter(node::Column::Cluster.eq(cluster.uuid()));
        let linked = linked.filter(node::Column::Removed.eq(false)).filter(node::Column::LinkGateway.is_not_null());
        let linked = linked.filter(node::Column::LinkGateway.ne(own)).all(self.0.db()).await?;
        if linked.is_empty() {
            return Ok(Vec::new());
        }
        let alive = self.alive().await?;
        let at = linked.into_iter().filter_map(|row| row.link_gateway.and_then(|id| Some((id, *alive.get(&id)?, row))));
        let typed = at.map(|(gateway, address, row)| {
            let name = codec::word("node name", &row.name)?;
            Ok(LinkedNode { name, pod_cidr: codec::word("node pod range", &row.pod_cidr)?, gateway, address })
        });
        typed.collect()
    }

    /// The gateways whose lease lasts, and their addresses.
    async fn alive(self) -> Result<HashMap<Uuid, SocketAddr>, StoreError> {
        let now = codec::millis(codec::now());
        let rows = gateway::Entity::find().filter(gateway::Column::ExpiresAt.gt(now)).all(self.0.db()).await?;
        rows.into_iter().map(|row| Ok((row.id, codec::word("gateway address", &row.address)?))).collect()
    }
}
