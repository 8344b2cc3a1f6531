//! Step 21: the traces of the requests that made work due.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text_null;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut changed = Table::alter();
        changed.table("work").add_column(text_null("traceparent"));
        manager.alter_table(changed.take()).await
    }
}
