//! Step 27: revoked kubeconfigs of which is not known yet what their holder left behind.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::boolean;

use super::index;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut changed = Table::alter();
        changed.table("kubeconfigs").add_column(boolean("unlisted").not_null().default(false));
        manager.alter_table(changed.take()).await?;
        // Asked for at every change of a kubeconfig.
        manager.create_index(index("kubeconfigs", &["refused_at"], false)).await
    }
}
