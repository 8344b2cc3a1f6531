//! Step 8: the names of nodes that were removed, for as long as their certificates could still be shown.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, text, uuid};

use super::belongs;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::create();
        table.table("departed_nodes").col(uuid("cluster")).col(text("name")).col(big_integer("until"));
        table.primary_key(Index::create().col("cluster").col("name")).foreign_key(&mut belongs("cluster", "clusters"));
        manager.create_table(table.take()).await
    }
}
