//! Table `node_pools`: named groups of machines.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "node_pools")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub cluster: Uuid,
    pub organization: Uuid,
    pub name: String,
    pub kind: String,
    pub count: i64,
    pub version: Option<String>,
    pub generation: i64,
    pub observed_generation: i64,
    pub state: String,
    pub state_message: String,
    pub problem: Option<String>,
    pub operation: Option<Uuid>,
    pub deletion_requested_at: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
