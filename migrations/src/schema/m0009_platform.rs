//! Step 9: the platform's own organization with its project, of which nobody is a member.

use sea_orm_migration::prelude::*;
use uuid::Uuid;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// The id of both.
const OWN: Uuid = Uuid::from_u128(1);
/// No name that people could choose.
const NAME: &str = "~platform";
const TITLE: &str = "Platform";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut organization = Query::insert();
        organization.into_table("organizations").columns(["id", "name", "display_name", "created_at"]);
        organization.values_panic([OWN.into(), NAME.into(), TITLE.into(), 0i64.into()]);
        manager.exec_stmt(organization).await?;
        let mut project = Query::insert();
        project.into_table("projects").columns(["id", "organization", "name", "display_name", "created_at"]);
        project.values_panic([OWN.into(), OWN.into(), NAME.into(), TITLE.into(), 0i64.into()]);
        manager.exec_stmt(project).await
    }
}
