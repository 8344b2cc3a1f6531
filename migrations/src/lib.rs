//! The store: schema steps and the typed store; the only crate that speaks SQL.
//!
//! [`Store`] is the entry point. It opens a SQLite file or a PostgreSQL database, brings the schema up to date under a lock, and hands out small
//! handles by topic: `store.clusters().load(id).await`. Rows go in and out as plain typed structs; nothing of sea-orm or SQL leaves.
//!
//! What it promises:
//! - **One transaction for intent**: a row, its audit entry, its operation and the work it makes due commit together, or not at all.
//! - **Isolation**: every method for people takes the organization, and another organization's row is [`StoreError::NotFound`].
//! - **An audit log that shows tampering**: its entries are chained by hash, and the chains' ends are signed (`store/audit_chain.rs`).
//! - **Nothing is lost**: a database that is locked or gone is [`StoreError::Unavailable`], which may be tried again.
//! - **Secrets**: tokens are kept as SHA-256, keys under the key-encryption key ([`Kek`]); neither is ever in a `Debug` text.
//!
//! What is deliberately not here: rules of business. Who may do what is the portal's, what should happen next the provisioner's.

mod changes;
mod codec;
mod connect;
mod db;
mod entity;
mod error;
mod kek;
mod rows;
mod schema;
mod secret;
mod store;

pub use changes::{Change, ChangeKind};
pub use error::{ConnectError, EnrollError, StoreError};
pub use kek::{Kek, KekError};
pub use rows::api_token::{ApiToken, NewToken};
pub use rows::audit::{
    AuditCheckpoint, AuditEntry, AuditFault, AuditFaultKind, AuditFilter, AuditLog, AuditReport, NewAudit,
    NotACheckpoint, UserEvent,
};
pub use rows::cluster::{Cluster, ClusterReport, NewCluster, Route};
pub use rows::gateway::{GatewayInfo, LinkedNode};
pub use rows::host::Host;
pub use rows::join_token::{JoinToken, NewJoinToken};
pub use rows::kubeconfig::{ClusterPath, Kubeconfig, KubeconfigKind, KubeconfigState, NewKubeconfig, Recipient};
pub use rows::node::{
    ConfigVersion, Enrolled, Enrollment, Node, NodeInfo, NodeReport, NodeRoute, Registration, Standing,
};
pub use rows::operation::{Operation, OperationState, Outcome, Step, StepState, StepUpdate};
pub use rows::organization::{Member, NewProject, Organization, Project, Role};
pub use rows::pool::{FirstPool, NewPool, NodePool, PoolKind, PoolReport};
pub use rows::quota::{QuotaHolder, QuotaUse, Resource, UnknownResource};
pub use rows::session::{NewSession, Session};
pub use rows::tombstone::{DeletedCluster, Tombstone};
pub use rows::user::{NewOwner, NewPassword, User};
pub use rows::work::{Backlog, Settle, Work, WorkKind};
pub use rows::{Actor, Page};
pub use secrecy::ExposeSecret;
pub use secret::Secret;
pub use store::Store;
pub use store::audit::Audit;
pub use store::authorities::PreparedAuthority;
pub use store::cluster_ports::ClusterPorts;
pub use store::clusters::Clusters;
pub use store::gateways::Gateways;
pub use store::hosts::Hosts;
pub use store::idempotency::{Idempotency, KeyLease, KeyState};
pub use store::identity::Identity;
pub use store::join_tokens::JoinTokens;
pub use store::kubeconfigs::Kubeconfigs;
pub use store::nodes::Nodes;
pub use store::operations::Operations;
pub use store::pki::Pki;
pub use store::pools::Pools;
pub use store::quotas::Quotas;
pub use store::settings::Settings;
pub use store::spares::Spares;
pub use store::tombstones::Tombstones;
pub use store::users::CLUSTER_USERS;
pub use store::work::WorkQueue;
