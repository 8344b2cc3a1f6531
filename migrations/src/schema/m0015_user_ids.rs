//! Step 15: the user each cluster's control plane runs as, one of its own. Clusters that are there get theirs, in the order of their ids.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer;

use super::index;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The first user id that is given out.
const FIRST: i64 = 1_879_100_000;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut clusters = Table::alter();
        manager.alter_table(clusters.table("clusters").add_column(big_integer("user_id").default(0)).take()).await?;
        let sql = format!(
            "UPDATE clusters SET user_id = {FIRST} + (SELECT count(*) FROM clusters AS older WHERE older.id < clusters.id)"
        );
        manager.get_connection().execute_unprepared(&sql).await?;
        manager.create_index(index("clusters", &["user_id"], true)).await
    }
}
