//! The tables as sea-orm sees them. Private: rows leave this crate as the types of [`crate::rows`].

pub(crate) mod access;
pub(crate) mod identity;
pub(crate) mod ledger;
pub(crate) mod world;

/// One table: the module sea-orm wants, without its ceremony. Relations are the schema's own business (foreign keys).
macro_rules! entity {
    ($($module:ident = $table:literal { $($(#[$attr:meta])* $field:ident: $kind:ty,)+ })+) => {$(
        pub(crate) mod $module {
            use sea_orm::entity::prelude::*;

            #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
            #[sea_orm(table_name = $table)]
            pub struct Model {
                $($(#[$attr])* pub $field: $kind,)+
            }

            #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}
        }
    )+};
}
pub(crate) use entity;
