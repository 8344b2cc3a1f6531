//! Step 2: clusters and their certificates.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, binary, pk_uuid, text, text_null, uuid, uuid_null};

use super::{belongs, index};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(clusters()).await?;
        manager.create_table(cluster_pki()).await?;
        manager.create_index(index("clusters", &["project", "name"], true)).await?;
        manager.create_index(index("clusters", &["organization"], false)).await?;
        manager.create_index(index("clusters", &["host"], false)).await
    }
}

fn clusters() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("clusters").col(pk_uuid("id")).col(uuid("project")).col(uuid("organization")).col(uuid("host"));
    table.col(text("name")).col(text("spec")).col(big_integer("generation")).col(big_integer("observed_generation"));
    table.col(text("state")).col(text("state_message")).col(text("conditions")).col(text_null("endpoint"));
    table.col(text_null("problem")).col(uuid_null("operation")).col(big_integer_null("deletion_requested_at"));
    table.col(big_integer("created_at")).col(big_integer("updated_at"));
    // Without a cascade: a project, organization or host cannot be taken from under its clusters.
    for (column, parent) in [("project", "projects"), ("organization", "organizations"), ("host", "hosts")] {
        table.foreign_key(ForeignKey::create().to(parent, "id").from_col(column));
    }
    table.take()
}

fn cluster_pki() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("cluster_pki").col(pk_uuid("cluster")).col(binary("sealed")).col(text("link_trust"));
    table.col(big_integer("created_at")).foreign_key(&mut belongs("cluster", "clusters")).take()
}
