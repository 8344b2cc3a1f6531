//! Rotation of the key-encryption key: every sealed value is opened and sealed again under the key that is current.
//!
//! Each row is one step of its own, so it may end anywhere and be begun again: what is done already names the current key. Nothing else is
//! changed, and nobody is told, for what is sealed stays the same.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect};
use tenant_controlplane::id::{ClusterId, KubeconfigId};
use uuid::Uuid;

use super::{Store, authorities, idempotency, pki, settings};
use crate::entity::{cluster_pki, idempotency_key, kubeconfig_authority, setting};
use crate::error::StoreError;

impl Store {
    /// Seals everything again that is not under the current key, and says how many values that were. The other key must be known
    /// ([`crate::Kek::with_previous`]). Runs any number of times.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a value that neither key opens, [`StoreError::Unavailable`]; what was done until then stays done.
    pub async fn reseal(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        // What somebody else writes meanwhile is under the current key, or seen by the next round.
        loop {
            let done = self.reseal_pki().await?
                + self.reseal_authorities().await?
                + self.reseal_settings().await?
                + self.reseal_answers().await?;
            count += done;
            if done == 0 {
                return Ok(count);
            }
        }
    }

    /// The same value under the current key; nothing where it is under it already.
    fn resealed(&self, owner: &str, sealed: &[u8], what: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        if self.kek().is_current(sealed) {
            return Ok(None);
        }
        let plain = self.kek().open(owner, sealed).ok_or(StoreError::Corrupt { what })?;
        self.kek().seal(owner, &plain).map(Some)
    }

    async fn reseal_pki(&self) -> Result<u64, StoreError> {
        use cluster_pki::{Column, Entity};
        let rows: Vec<(Uuid, Vec<u8>)> = {
            let query = Entity::find().select_only().column(Column::Cluster).column(Column::Sealed);
            query.into_tuple().all(self.db()).await?
        };
        let mut count = 0;
        for (id, old) in rows {
            let Some(new) = self.resealed(&pki::owner(ClusterId::from_uuid(id)), &old, pki::WHAT)? else { continue };
            let row = Entity::update_many().col_expr(Column::Sealed, Expr::value(new));
            // One that was replaced meanwhile is left to the next round.
            let row = row.filter(Column::Cluster.eq(id)).filter(Column::Sealed.eq(old));
            count += row.exec(self.db()).await?.rows_affected;
        }
        Ok(count)
    }

    async fn reseal_authorities(&self) -> Result<u64, StoreError> {
        use kubeconfig_authority::{Column, Entity};
        let rows = Entity::find().all(self.db()).await?;
        let mut count = 0;
        for row in rows {
            let owner = authorities::owner(KubeconfigId::from_uuid(row.id));
            let Some(new) = self.resealed(&owner, &row.sealed, authorities::WHAT)? else { continue };
            let update = Entity::update_many().col_expr(Column::Sealed, Expr::value(new));
            let update = update.filter(Column::Id.eq(row.id)).filter(Column::Sealed.eq(row.sealed));
            count += update.exec(self.db()).await?.rows_affected;
        }
        Ok(count)
    }

    async fn reseal_settings(&self) -> Result<u64, StoreError> {
        use setting::{Column, Entity};
        let rows = Entity::find().filter(Column::Sealed.is_not_null()).all(self.db()).await?;
        let mut count = 0;
        for row in rows {
            let old = row.sealed.unwrap_or_default();
            let Some(new) = self.resealed(&settings::owner(&row.key), &old, "secret setting")? else { continue };
            let update = Entity::update_many().col_expr(Column::Sealed, Expr::value(new));
            let update = update.filter(Column::Key.eq(row.key)).filter(Column::Sealed.eq(old));
            count += update.exec(self.db()).await?.rows_affected;
        }
        Ok(count)
    }

    async fn reseal_answers(&self) -> Result<u64, StoreError> {
        use idempotency_key::{Column, Entity};
        let rows = Entity::find().filter(Column::Answer.is_not_null()).all(self.db()).await?;
        let mut count = 0;
        for row in rows {
            let old = row.answer.unwrap_or_default();
            let Some(new) = self.resealed(&idempotency::owner(&row.id), &old, "kept answer")? else { continue };
            let update = Entity::update_many().col_expr(Column::Answer, Expr::value(new));
            let update = update.filter(Column::Id.eq(row.id)).filter(Column::Answer.eq(old));
            count += update.exec(self.db()).await?.rows_affected;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::{ConnectionTrait, Statement};

    use super::*;
    use crate::kek::Kek;

    /// Every column of bytes that holds sealed values, as `table.column`: each must be sealed again by [`Store::reseal`].
    const SEALED: [&str; 4] =
        ["cluster_pki.sealed", "idempotency_keys.answer", "kubeconfig_authorities.sealed", "settings.sealed"];

    #[tokio::test]
    async fn no_sealed_column_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("x.db").display());
        let store = Store::connect(&url, Kek::from_bytes(&[1; 32])).await.unwrap();
        let sql = "SELECT m.name || '.' || p.name AS place FROM sqlite_master m JOIN pragma_table_info(m.name) p \
                   WHERE m.type = 'table' AND lower(p.type) LIKE '%blob%' AND lower(p.type) NOT LIKE 'uuid%' ORDER BY 1";
        let rows =
            store.db().query_all_raw(Statement::from_string(store.db().get_database_backend(), sql)).await.unwrap();
        let places: Vec<String> = rows.iter().map(|row| row.try_get("", "place").unwrap()).collect();
        assert_eq!(
            places, SEALED,
            "a new column of bytes: seal it again in this file, or say here that it is no secret"
        );
    }
}
