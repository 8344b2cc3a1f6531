//! Table `deleted_clusters`: what is left of deleted clusters whose nodes may not know yet.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deleted_clusters")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub cluster: Uuid,
    pub link_trust: String,
    pub until: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
