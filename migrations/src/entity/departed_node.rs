//! Table `departed_nodes`: names of removed nodes that are nobody's for a while.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "departed_nodes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub cluster: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    pub until: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
