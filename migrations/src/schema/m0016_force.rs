//! Step 16: whether a deletion is forced: it no longer waits for what may never come.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::boolean;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["clusters", "nodes"] {
            let mut changed = Table::alter();
            changed.table(table).add_column(boolean("forced").default(false));
            manager.alter_table(changed.take()).await?;
        }
        Ok(())
    }
}
