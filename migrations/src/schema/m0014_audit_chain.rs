//! Step 14: the audit log's entries are chained by hash, one chain per organization and one for the platform.
//!
//! Entries of before this step are chained as they are found. Their heads have no signature yet: [`crate::store::audit_chain`] signs each
//! with its first new entry, which says so.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, QueryResult};
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, text, text_null, uuid};
use uuid::Uuid;

use super::index;
use crate::entity::{audit, audit_head};
use crate::store::audit_chain::{self, PLATFORM};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// Entries read at once.
const BATCH: u64 = 500;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns =
            [big_integer("sequence").default(0).take(), text("hash").default("").take(), text_null("address")];
        for column in columns {
            manager.alter_table(Table::alter().table("audit").add_column(column).to_owned()).await?;
        }
        manager.create_table(heads()).await?;
        let heads = chain_entries(manager).await?;
        for head in heads.into_values() {
            manager.exec_stmt(insert(head)).await?;
        }
        manager.create_index(index("audit", &["organization", "sequence"], true)).await?;
        manager.create_index(index("audit", &["target"], false)).await
    }
}

fn heads() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("audit_heads").col(uuid("chain").primary_key()).col(big_integer("sequence")).col(text("hash"));
    table.col(big_integer("first")).col(text("first_hash")).col(text("mac")).take()
}

fn insert(head: audit_head::Model) -> InsertStatement {
    let mut insert = Query::insert();
    insert.into_table("audit_heads").columns(["chain", "sequence", "hash", "first", "first_hash", "mac"]);
    let (place, first) = ((head.chain, head.sequence, head.hash), (head.first, head.first_hash, head.mac));
    insert.values_panic([
        place.0.into(),
        place.1.into(),
        place.2.into(),
        first.0.into(),
        first.1.into(),
        first.2.into(),
    ]);
    insert
}

/// Gives every entry its place and hash, and returns the heads: of every organization and of the platform, also without entries.
async fn chain_entries(manager: &SchemaManager<'_>) -> Result<BTreeMap<Uuid, audit_head::Model>, DbErr> {
    let connection = manager.get_connection();
    let organizations = Query::select().column("id").from("organizations").to_owned();
    let mut heads = BTreeMap::from([(PLATFORM, audit_chain::start(PLATFORM))]);
    for row in connection.query_all(&organizations).await? {
        let chain = row.try_get("", "id")?;
        heads.insert(chain, audit_chain::start(chain));
    }
    let mut after = Uuid::nil();
    loop {
        let rows = connection.query_all(&entries(after)).await?;
        let Some(last) = rows.last() else { return Ok(heads) };
        after = last.try_get("", "id")?;
        for row in rows {
            let row = entry(&row)?;
            let chain = row.organization.unwrap_or(PLATFORM);
            let head = heads.entry(chain).or_insert_with(|| audit_chain::start(chain));
            manager.exec_stmt(placed(&audit_chain::link(head, row))).await?;
        }
    }
}

fn entries(after: Uuid) -> SelectStatement {
    let columns = ["id", "organization", "actor", "action", "target", "detail", "created_at"];
    let mut query = Query::select();
    query.columns(columns).from("audit").and_where(Expr::col("id").gt(after)).order_by("id", Order::Asc).limit(BATCH);
    query
}

fn entry(row: &QueryResult) -> Result<audit::Model, DbErr> {
    Ok(audit::Model {
        id: row.try_get("", "id")?,
        organization: row.try_get("", "organization")?,
        actor: row.try_get("", "actor")?,
        action: row.try_get("", "action")?,
        target: row.try_get("", "target")?,
        detail: row.try_get("", "detail")?,
        created_at: row.try_get("", "created_at")?,
        sequence: 0,
        hash: String::new(),
        address: None,
        number: 0,
    })
}

fn placed(row: &audit::Model) -> UpdateStatement {
    let mut update = Query::update();
    update.table("audit").value("sequence", row.sequence).value("hash", row.hash.as_str());
    update.and_where(Expr::col("id").eq(row.id));
    update
}
