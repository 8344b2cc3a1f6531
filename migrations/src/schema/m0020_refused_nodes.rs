//! Step 20: when a removed node's certificates were seen to be refused, also where nobody waited for it.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer_null;

use super::index;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut changed = Table::alter();
        changed.table("node_tombstones").add_column(big_integer_null("refused_at"));
        manager.alter_table(changed.take()).await?;
        manager.create_index(index("node_tombstones", &["refused_at"], false)).await
    }
}
