//! Step 7: until when a node's pods may move away before its machine goes.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer_null;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut nodes = Table::alter();
        manager.alter_table(nodes.table("nodes").add_column(big_integer_null("drain_ends_at")).take()).await
    }
}
