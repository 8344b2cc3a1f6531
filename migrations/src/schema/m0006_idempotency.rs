//! Step 6: what was answered to requests that carried an idempotency key.
//!
//! The id is a hash of caller, method, path and key. No foreign key leads anywhere: a row outlives what it made, and ends by its time.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, binary_null, text, text_null, uuid};

use super::index;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(idempotency_keys()).await?;
        manager.create_index(index("idempotency_keys", &["expires_at"], false)).await
    }
}

fn idempotency_keys() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("idempotency_keys").col(text("id").primary_key()).col(text("fingerprint")).col(uuid("holder"));
    table.col(text_null("made")).col(binary_null("answer")).col(big_integer("lease_until"));
    table.col(big_integer("expires_at")).take()
}
