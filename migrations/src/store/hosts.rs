//! The Kubernetes clusters that run control planes. There is always at least one, `local`.

use sea_orm::sea_query::OnConflict;
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryOrder, Statement};
use uuid::Uuid;

use super::Store;
use crate::codec;
use crate::db::Tx;
use crate::entity::host;
use crate::error::StoreError;
use crate::rows;
use crate::rows::host::Host;

const FIRST: &str = "local";

/// Hosts; see [`Store::hosts`].
#[derive(Clone, Copy)]
pub struct Hosts<'a>(pub(super) &'a Store);

impl Hosts<'_> {
    /// All hosts, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn list(self) -> Result<Vec<Host>, StoreError> {
        rows::all(host::Entity::find().order_by_asc(host::Column::Id).all(self.0.db()).await?)
    }

    /// Makes the first host known unless there is one; several may come at once.
    pub(super) async fn ensure_one(self) -> Result<(), StoreError> {
        if host::Entity::find().one(self.0.db()).await?.is_some() {
            return Ok(());
        }
        let first = host::Model { id: Uuid::now_v7(), name: FIRST.to_owned(), created_at: codec::millis(codec::now()) };
        let taken = OnConflict::column(host::Column::Name).do_nothing().to_owned();
        let added = host::Entity::insert(first.into_active_model()).on_conflict(taken);
        match added.exec_without_returning(self.0.db()).await {
            Ok(_) | Err(DbErr::RecordNotInserted) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The host with the fewest clusters.
pub(super) async fn emptiest(tx: &Tx) -> Result<Uuid, StoreError> {
    let sql = "SELECT h.id AS id FROM hosts h LEFT JOIN clusters c ON c.host = h.id \
               GROUP BY h.id ORDER BY COUNT(c.id), h.id LIMIT 1";
    let row = tx.query_one_raw(Statement::from_string(tx.get_database_backend(), sql)).await?;
    Ok(row.ok_or(StoreError::missing("host"))?.try_get("", "id")?)
}
