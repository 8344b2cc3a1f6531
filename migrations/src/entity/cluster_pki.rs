//! Table `cluster_pki`: clusters' certificates and keys, sealed.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "cluster_pki")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub cluster: Uuid,
    pub sealed: Vec<u8>,
    pub link_trust: String,
    pub created_at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
