//! Step 11: each kubeconfig's own authority, when it was seen to be refused, and what its holder leaves behind; clusters' own ports.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, text_null, uuid_uniq};

use super::belongs;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite takes one column at a time.
        for mut column in [text_null("authority"), big_integer_null("refused_at"), text_null("left_behind")] {
            let mut kubeconfigs = Table::alter();
            manager.alter_table(kubeconfigs.table("kubeconfigs").add_column(&mut column).take()).await?;
        }
        let mut ports = Table::create();
        ports.table("cluster_ports").col(big_integer("port").primary_key()).col(uuid_uniq("cluster"));
        manager.create_table(ports.foreign_key(&mut belongs("cluster", "clusters")).take()).await
    }
}
