//! Step 5: operations, work, audit and settings.
//!
//! Operations outlive their cluster, so that whoever waits for a deletion sees its end.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, binary_null, pk_uuid, text, text_null, uuid, uuid_null,
};

use super::{belongs, index};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [operations(), work(), audit(), settings()] {
            manager.create_table(table).await?;
        }
        manager.create_index(index("operations", &["target"], false)).await?;
        manager.create_index(index("operations", &["cluster"], false)).await?;
        manager.create_index(index("work", &["due_at"], false)).await?;
        manager.create_index(index("audit", &["organization"], false)).await
    }
}

fn operations() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("operations").col(pk_uuid("id")).col(uuid("organization")).col(uuid_null("cluster")).col(text("kind"));
    table.col(text("target")).col(text("state")).col(text("steps")).col(text_null("problem")).col(text("actor"));
    table.col(big_integer("version")).col(big_integer("created_at")).col(big_integer_null("finished_at"));
    table.foreign_key(&mut belongs("organization", "organizations")).take()
}

fn work() -> TableCreateStatement {
    let mut table = Table::create();
    table
        .table("work")
        .col(text("kind"))
        .col(uuid("id"))
        .col(big_integer("due_at"))
        .col(big_integer_null("lease_until"));
    table.col(text("lease_owner")).col(big_integer("failures")).col(big_integer("fence")).col(big_integer("wanted"));
    table.primary_key(Index::create().col("kind").col("id")).take()
}

fn audit() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("audit").col(pk_uuid("id")).col(uuid_null("organization")).col(text("actor")).col(text("action"));
    table.col(text("target")).col(text("detail")).col(big_integer("created_at")).take()
}

fn settings() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("settings").col(text("key").primary_key()).col(text_null("value")).col(binary_null("sealed")).take()
}
