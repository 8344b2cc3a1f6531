//! Step 18: whether rights above `view` in a cluster were ever given to somebody below the role admin.

use sea_orm::ConnectionTrait;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::boolean;
use tenant_controlplane::id::{ApiTokenId, UserId};
use uuid::Uuid;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::alter();
        table.table("clusters").add_column(boolean("delegated").not_null().default(false));
        manager.alter_table(table.take()).await?;
        for cluster in delegated(manager.get_connection()).await? {
            let mut mark = Query::update();
            mark.table("clusters").value("delegated", true).and_where(Expr::col("id").eq(cluster));
            manager.exec_stmt(mark).await?;
        }
        Ok(())
    }
}

/// Clusters with a kubeconfig above `view` whose maker is not known to be an admin. A maker who is gone counts as none.
async fn delegated(db: &impl ConnectionTrait) -> Result<Vec<Uuid>, DbErr> {
    let mut query = Query::select();
    query
        .columns(["cluster", "organization", "created_by"])
        .from("kubeconfigs")
        .and_where(Expr::col("role").ne("view"));
    let mut found = Vec::new();
    for row in db.query_all(&query).await? {
        let (cluster, organization): (Uuid, Uuid) = (row.try_get("", "cluster")?, row.try_get("", "organization")?);
        let maker: String = row.try_get("", "created_by")?;
        if !is_admin(db, organization, &maker).await? {
            found.push(cluster);
        }
    }
    Ok(found)
}

async fn is_admin(db: &impl ConnectionTrait, organization: Uuid, maker: &str) -> Result<bool, DbErr> {
    let mut query = Query::select();
    query.column("role").and_where(Expr::col("organization").eq(organization));
    if let Ok(user) = maker.parse::<UserId>() {
        query.from("members").and_where(Expr::col("user").eq(user.uuid()));
    } else if let Ok(token) = maker.parse::<ApiTokenId>() {
        query.from("api_tokens").and_where(Expr::col("id").eq(token.uuid()));
    } else {
        return Ok(maker == "system");
    }
    let role = db.query_one(&query).await?.map(|row| row.try_get::<String>("", "role")).transpose()?;
    Ok(role.is_some_and(|role| role == "admin" || role == "owner"))
}
