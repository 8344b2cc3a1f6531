//! Step 23: gateways, and at which of them a node's link is.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, text, uuid, uuid_null};

use super::index;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::create();
        table.table("gateways").col(uuid("id").primary_key()).col(uuid("instance"));
        table.col(text("address")).col(big_integer("started_at")).col(big_integer("expires_at"));
        manager.create_table(table.take()).await?;
        let mut changed = Table::alter();
        changed.table("nodes").add_column(uuid_null("link_gateway"));
        manager.alter_table(changed.take()).await?;
        manager.create_index(index("nodes", &["link_gateway"], false)).await
    }
}
