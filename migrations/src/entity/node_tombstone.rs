//! Table `node_tombstones`: that a node was removed.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "node_tombstones")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub node: Uuid,
    pub cluster: Uuid,
    pub name: String,
    pub removed_at: i64,
    pub refused_at: Option<i64>,
    pub until: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
