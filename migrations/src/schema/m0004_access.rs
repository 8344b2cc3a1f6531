//! Step 4: join tokens and kubeconfigs.
//!
//! A token's use remembers the node's id without a foreign key: after the node is gone the machine is still known as removed.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, boolean, pk_uuid, text, text_null, uuid, uuid_null};

use super::{belongs, index};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(join_tokens()).await?;
        manager.create_table(join_token_uses()).await?;
        manager.create_table(kubeconfigs()).await?;
        manager.create_index(index("join_tokens", &["cluster"], false)).await?;
        manager.create_index(index("join_tokens", &["pool"], false)).await?;
        manager.create_index(index("kubeconfigs", &["cluster"], false)).await
    }
}

fn join_tokens() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("join_tokens").col(pk_uuid("id")).col(uuid("cluster")).col(uuid("pool")).col(uuid("organization"));
    table.col(uuid_null("node")).col(text("hash")).col(big_integer("expires_at")).col(big_integer("max_uses"));
    table.col(big_integer("uses")).col(big_integer_null("revoked_at")).col(big_integer("created_at"));
    table.foreign_key(&mut belongs("cluster", "clusters")).foreign_key(&mut belongs("pool", "node_pools")).take()
}

fn join_token_uses() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("join_token_uses").col(uuid("token")).col(text("fingerprint")).col(uuid("node"));
    table.col(big_integer("used_at")).primary_key(Index::create().col("token").col("fingerprint"));
    table.foreign_key(&mut belongs("token", "join_tokens")).take()
}

fn kubeconfigs() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("kubeconfigs").col(pk_uuid("id")).col(uuid("cluster")).col(uuid("organization")).col(text("name"));
    table.col(text("role")).col(text("kind")).col(text_null("serial")).col(big_integer("expires_at"));
    table.col(big_integer_null("revoked_at")).col(boolean("bound")).col(boolean("released"));
    table.col(text("created_by")).col(big_integer("created_at"));
    table.foreign_key(&mut belongs("cluster", "clusters")).take()
}
