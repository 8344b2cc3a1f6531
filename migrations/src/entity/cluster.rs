//! Table `clusters`: tenants' control planes: what they should be, and what was observed.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "clusters")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub project: Uuid,
    pub organization: Uuid,
    pub host: Uuid,
    pub name: String,
    pub spec: String,
    pub generation: i64,
    pub observed_generation: i64,
    pub state: String,
    pub state_message: String,
    pub conditions: String,
    pub endpoint: Option<String>,
    pub problem: Option<String>,
    pub operation: Option<Uuid>,
    pub deletion_requested_at: Option<i64>,
    pub forced: bool,
    pub delegated: bool,
    pub created_at: i64,
    pub updated_at: i64,
    pub user_id: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
