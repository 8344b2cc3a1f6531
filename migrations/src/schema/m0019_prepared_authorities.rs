//! Step 19: authorities of kubeconfigs that are made ahead, so that a file need not wait until its API servers believe it.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, binary, boolean, text, uuid};

use super::{belongs, index};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::create();
        table.table("kubeconfig_authorities").col(uuid("id").primary_key()).col(uuid("cluster"));
        table.col(text("certificate")).col(binary("sealed")).col(boolean("taken")).col(big_integer("since"));
        manager.create_table(table.foreign_key(&mut belongs("cluster", "clusters")).take()).await?;
        manager.create_index(index("kubeconfig_authorities", &["cluster"], false)).await
    }
}
