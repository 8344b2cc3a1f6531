//! Table `nodes`: single machines.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "nodes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub cluster: Uuid,
    pub pool: Uuid,
    pub organization: Uuid,
    pub name: String,
    pub state: String,
    pub state_message: String,
    pub pod_cidr: String,
    pub machine_fingerprint: Option<String>,
    pub facts: String,
    pub link_connected: bool,
    pub link_gateway: Option<Uuid>,
    pub last_seen_at: Option<i64>,
    pub removed: bool,
    pub problem: Option<String>,
    pub operation: Option<Uuid>,
    pub deletion_requested_at: Option<i64>,
    pub forced: bool,
    pub drain_ends_at: Option<i64>,
    pub config_generation: i64,
    pub config_digest: String,
    pub registration: i64,
    pub registration_ordered_at: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
