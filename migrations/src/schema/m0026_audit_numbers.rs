//! Step 26: new entries of the audit log are numbered over all chains, so that a whole chain cannot be put back unseen.
//!
//! Entries of before keep the number 0 and their hash. The head of the numbers has no signature yet:
//! [`crate::store::audit_chain`] signs it when it begins them.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer;

use super::index;
use crate::entity::audit_head;
use crate::store::audit_chain::{self, NUMBERS};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut changed = Table::alter();
        changed.table("audit").add_column(big_integer("number").default(0));
        manager.alter_table(changed.take()).await?;
        let mut head = Query::insert();
        head.into_table("audit_heads").columns(["chain", "sequence", "hash", "first", "first_hash", "mac"]);
        let audit_head::Model { chain, sequence, hash, first, first_hash, mac } = audit_chain::start(NUMBERS);
        let values = [chain.into(), sequence.into(), hash.into(), first.into(), first_hash.into(), mac.into()];
        head.values_panic(values);
        manager.exec_stmt(head).await?;
        manager.create_index(index("audit", &["number"], false)).await
    }
}
