//! The steps of the schema, in order. A step that has been released is never changed again: a new file is added.
//!
//! One file holds one step, because sea-orm names steps after their files. Steps only go forward. Each is one transaction,
//! on SQLite too (`use_transaction`), so that a process that is killed in the middle leaves nothing half made. What a step needs
//! is written out in it, and does not change with the crate; only the hash of the audit log's chain is the same everywhere.

mod m0001_tenancy;
mod m0002_clusters;
mod m0003_nodes;
mod m0004_access;
mod m0005_ledger;
mod m0006_idempotency;
mod m0007_drain;
mod m0008_departed;
mod m0009_platform;
mod m0010_tombstones;
mod m0011_kubeconfig_authorities;
mod m0012_quotas;
mod m0013_accounts;
mod m0014_audit_chain;
mod m0015_user_ids;
mod m0016_force;
mod m0018_local_machines;
mod m0019_prepared_authorities;
mod m0020_refused_nodes;
mod m0021_trace_context;
mod m0022_pool_version;
mod m0023_gateways;
mod m0026_audit_numbers;
mod m0027_unlisted_kubeconfigs;
#[cfg(test)]
mod tests;

use sea_orm_migration::prelude::*;

/// The step that chains the audit log, by the name of its file.
pub(crate) const AUDIT_CHAIN: &str = "m0014_audit_chain";
/// The step that numbers its entries, by the same.
pub(crate) const AUDIT_NUMBERS: &str = "m0026_audit_numbers";

/// All steps.
pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_tenancy::Migration),
            Box::new(m0002_clusters::Migration),
            Box::new(m0003_nodes::Migration),
            Box::new(m0004_access::Migration),
            Box::new(m0005_ledger::Migration),
            Box::new(m0006_idempotency::Migration),
            Box::new(m0007_drain::Migration),
            Box::new(m0008_departed::Migration),
            Box::new(m0009_platform::Migration),
            Box::new(m0010_tombstones::Migration),
            Box::new(m0011_kubeconfig_authorities::Migration),
            Box::new(m0012_quotas::Migration),
            Box::new(m0013_accounts::Migration),
            Box::new(m0014_audit_chain::Migration),
            Box::new(m0015_user_ids::Migration),
            Box::new(m0016_force::Migration),
            Box::new(m0018_local_machines::Migration),
            Box::new(m0019_prepared_authorities::Migration),
            Box::new(m0020_refused_nodes::Migration),
            Box::new(m0021_trace_context::Migration),
            Box::new(m0022_pool_version::Migration),
            Box::new(m0023_gateways::Migration),
            Box::new(m0026_audit_numbers::Migration),
            Box::new(m0027_unlisted_kubeconfigs::Migration),
        ]
    }
}

/// A foreign key to `table`'s id; rows go with their parent.
fn belongs(column: &'static str, table: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create().to(table, "id").from_col(column).on_delete(ForeignKeyAction::Cascade).take()
}

/// An index over columns; `unique` ones are where "taken" comes from.
fn index(table: &'static str, columns: &[&'static str], unique: bool) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(format!("{table}_{}", columns.join("_"))).table(table);
    for column in columns {
        index.col(*column);
    }
    if unique { index.unique().take() } else { index.take() }
}
