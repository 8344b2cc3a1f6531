//! Table `kubeconfigs`: issued kubeconfigs, without their keys.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "kubeconfigs")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub cluster: Uuid,
    pub organization: Uuid,
    pub name: String,
    pub role: String,
    pub kind: String,
    pub serial: Option<String>,
    pub expires_at: i64,
    pub revoked_at: Option<i64>,
    pub bound: bool,
    pub released: bool,
    pub created_by: String,
    pub created_at: i64,
    pub authority: Option<String>,
    pub refused_at: Option<i64>,
    pub left_behind: Option<String>,
    pub unlisted: bool,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
