//! Step 10: tombstones. That a node was removed is written down, and stays written down longer than any of its certificates lasts and
//! longer than its cluster: a row that is merely missing says nothing. Beside the node: the version of its configuration, and the order
//! to register anew.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, text, uuid};

use super::index;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut tombstones = Table::create();
        tombstones.table("node_tombstones").col(uuid("node")).col(uuid("cluster")).col(text("name"));
        tombstones.col(big_integer("removed_at")).col(big_integer("until")).primary_key(Index::create().col("node"));
        manager.create_table(tombstones.take()).await?;
        manager.create_index(index("node_tombstones", &["cluster"], false)).await?;
        let mut clusters = Table::create();
        clusters.table("deleted_clusters").col(uuid("cluster")).col(text("link_trust")).col(big_integer("until"));
        clusters.primary_key(Index::create().col("cluster"));
        manager.create_table(clusters.take()).await?;
        // SQLite adds one column at a time.
        let columns = [
            big_integer("config_generation").default(0).take(),
            text("config_digest").default("").take(),
            big_integer("registration").default(0).take(),
            big_integer_null("registration_ordered_at"),
        ];
        for column in columns {
            let mut nodes = Table::alter();
            manager.alter_table(nodes.table("nodes").add_column(column).take()).await?;
        }
        // Agents say which generation they follow, and no lower one is given to them.
        let mut settings = Query::delete();
        settings.from_table("settings").and_where(Expr::col("key").like("node-config/%"));
        manager.exec_stmt(settings).await
    }
}
