//! Step 12: quotas of organizations and people; names of organizations that say nothing about other tenants; whose an
//! idempotency key is.
//!
//! A quota's holder is an organization or a person, so no foreign key leads anywhere. A limit that is not here is the
//! installation's (setting `limit.RESOURCE`) or the built-in one.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, text, uuid, uuid_null};

use super::index;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// What is counted per organization.
const COUNTED: [&str; 4] = ["node_pools", "nodes", "join_tokens", "kubeconfigs"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(quotas()).await?;
        for table in COUNTED {
            manager.create_index(index(table, &["organization"], false)).await?;
        }
        // A name that is taken by another tenant would tell that there is such a tenant. No other index takes the place of this
        // one: SQLite's other connections, which still know it, would refuse the same name.
        let mut unique = Index::drop();
        unique.name("organizations_name").table("organizations");
        manager.drop_index(unique).await?;
        // Answers of earlier versions do not say what their caller might do then.
        let mut answered = Query::delete();
        answered.from_table("idempotency_keys").and_where(Expr::col("answer").is_not_null());
        manager.exec_stmt(answered).await?;
        let mut keys = Table::alter();
        manager.alter_table(keys.table("idempotency_keys").add_column(uuid_null("caller")).take()).await?;
        manager.create_index(index("idempotency_keys", &["caller"], false)).await
    }
}

fn quotas() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("quotas").col(uuid("holder")).col(text("resource")).col(big_integer("most"));
    table.primary_key(Index::create().col("holder").col("resource")).take()
}
