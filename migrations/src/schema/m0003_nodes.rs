//! Step 3: node pools and nodes. Two nodes of a cluster never share a name or a pod range: the database sees to it.

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
        manager.create_table(node_pools()).await?;
        manager.create_table(nodes()).await?;
        manager.create_index(index("node_pools", &["cluster", "name"], true)).await?;
        manager.create_index(index("nodes", &["cluster", "name"], true)).await?;
        manager.create_index(index("nodes", &["cluster", "pod_cidr"], true)).await?;
        manager.create_index(index("nodes", &["pool"], false)).await
    }
}

fn node_pools() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("node_pools").col(pk_uuid("id")).col(uuid("cluster")).col(uuid("organization")).col(text("name"));
    table.col(text("kind")).col(big_integer("count")).col(big_integer("generation"));
    table.col(big_integer("observed_generation")).col(text("state")).col(text("state_message"));
    table.col(text_null("problem")).col(uuid_null("operation")).col(big_integer_null("deletion_requested_at"));
    table.col(big_integer("created_at")).col(big_integer("updated_at"));
    table.foreign_key(&mut belongs("cluster", "clusters")).take()
}

fn nodes() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("nodes").col(pk_uuid("id")).col(uuid("cluster")).col(uuid("pool")).col(uuid("organization"));
    table.col(text("name")).col(text("state")).col(text("state_message")).col(text("pod_cidr"));
    table.col(text_null("machine_fingerprint")).col(text("facts")).col(boolean("link_connected"));
    table.col(big_integer_null("last_seen_at")).col(boolean("removed")).col(text_null("problem"));
    table.col(uuid_null("operation")).col(big_integer_null("deletion_requested_at"));
    table.col(big_integer("created_at")).col(big_integer("updated_at"));
    table.foreign_key(&mut belongs("cluster", "clusters")).foreign_key(&mut belongs("pool", "node_pools")).take()
}
