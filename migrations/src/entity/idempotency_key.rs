//! Table `idempotency_keys`: what was answered to requests that may come twice.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency_keys")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub fingerprint: String,
    pub holder: Uuid,
    pub made: Option<String>,
    pub answer: Option<Vec<u8>>,
    pub lease_until: i64,
    pub expires_at: i64,
    pub caller: Option<Uuid>,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
