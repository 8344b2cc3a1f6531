//! Step 1: organizations, projects, people, their credentials, and the hosts.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, pk_uuid, text, text_null, uuid};

use super::{belongs, index};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [organizations(), projects(), users(), members(), api_tokens(), sessions(), hosts()] {
            manager.create_table(table).await?;
        }
        manager.create_index(index("organizations", &["name"], true)).await?;
        manager.create_index(index("projects", &["organization", "name"], true)).await?;
        manager.create_index(index("users", &["email"], true)).await?;
        manager.create_index(index("members", &["user"], false)).await?;
        manager.create_index(index("api_tokens", &["organization"], false)).await?;
        manager.create_index(index("api_tokens", &["user"], false)).await?;
        manager.create_index(index("hosts", &["name"], true)).await
    }
}

fn organizations() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("organizations").col(pk_uuid("id")).col(text("name")).col(text("display_name"));
    table.col(big_integer("created_at")).take()
}

fn projects() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("projects").col(pk_uuid("id")).col(uuid("organization")).col(text("name")).col(text("display_name"));
    table.col(big_integer("created_at")).foreign_key(&mut belongs("organization", "organizations")).take()
}

fn users() -> TableCreateStatement {
    let mut table = Table::create();
    table
        .table("users")
        .col(pk_uuid("id"))
        .col(text("email"))
        .col(text("display_name"))
        .col(text_null("password_hash"));
    table.col(big_integer("created_at")).take()
}

fn members() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("members").col(uuid("organization")).col(uuid("user")).col(text("role"));
    table.primary_key(Index::create().col("organization").col("user"));
    table.foreign_key(&mut belongs("organization", "organizations")).foreign_key(&mut belongs("user", "users")).take()
}

fn api_tokens() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("api_tokens").col(pk_uuid("id")).col(uuid("organization")).col(uuid("user")).col(text("name"));
    table.col(text("role")).col(text("hash")).col(big_integer_null("expires_at"));
    table.col(big_integer_null("last_used_at")).col(big_integer("created_at"));
    table.foreign_key(&mut belongs("organization", "organizations")).foreign_key(&mut belongs("user", "users")).take()
}

fn sessions() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("sessions").col(text("hash").primary_key()).col(uuid("user")).col(big_integer("created_at"));
    table.col(big_integer("expires_at")).foreign_key(&mut belongs("user", "users")).take()
}

fn hosts() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("hosts").col(pk_uuid("id")).col(text("name")).col(big_integer("created_at")).take()
}
