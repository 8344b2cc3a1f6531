//! Table `cluster_ports`: ports of the gateway that lead to one cluster alone.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "cluster_ports")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub port: i64,
    pub cluster: Uuid,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
