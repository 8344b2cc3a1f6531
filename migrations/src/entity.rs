//! The tables as sea-orm sees them, one file each. Private: rows leave this crate as the types of [`crate::rows`].
//!
//! Relations are the schema's own business (foreign keys), so no entity has any.

pub(crate) mod api_token;
pub(crate) mod audit;
pub(crate) mod audit_head;
pub(crate) mod cluster;
pub(crate) mod cluster_pki;
pub(crate) mod cluster_port;
pub(crate) mod deleted_cluster;
pub(crate) mod departed_node;
pub(crate) mod gateway;
pub(crate) mod host;
pub(crate) mod idempotency_key;
pub(crate) mod join_token;
pub(crate) mod join_token_use;
pub(crate) mod kubeconfig;
pub(crate) mod kubeconfig_authority;
pub(crate) mod member;
pub(crate) mod node;
pub(crate) mod node_pool;
pub(crate) mod node_tombstone;
pub(crate) mod operation;
pub(crate) mod organization;
pub(crate) mod password_reset;
pub(crate) mod project;
pub(crate) mod quota;
pub(crate) mod session;
pub(crate) mod setting;
pub(crate) mod user;
pub(crate) mod work;
