//! Step 13: sessions say where they are used from and since when; links that set a forgotten password anew; the addresses of tokens.
//!
//! Sessions of before this step end: nothing is known of their last use. People sign in again.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, text, text_null, uuid};

use super::{belongs, index};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table("sessions").to_owned()).await?;
        manager.create_table(sessions()).await?;
        manager.create_table(password_resets()).await?;
        let addresses = Table::alter().table("api_tokens").add_column(text_null("addresses")).to_owned();
        manager.alter_table(addresses).await?;
        manager.create_index(index("sessions", &["user"], false)).await?;
        manager.create_index(index("sessions", &["id"], true)).await
    }
}

fn sessions() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("sessions").col(text("hash").primary_key()).col(uuid("id")).col(uuid("user"));
    table.col(big_integer("created_at")).col(big_integer("last_used_at")).col(big_integer("expires_at"));
    table.col(text("address")).col(text("user_agent")).foreign_key(&mut belongs("user", "users")).take()
}

fn password_resets() -> TableCreateStatement {
    let mut table = Table::create();
    table.table("password_resets").col(uuid("user").primary_key()).col(text("hash"));
    table.col(big_integer("created_at")).col(big_integer("expires_at"));
    table.foreign_key(&mut belongs("user", "users")).take()
}
