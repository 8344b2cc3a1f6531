//! The operations, shared by REST and pages: authorize → rules → store.
//!
//! They take and return the shapes of `api-types`. Ids come in as text, just as they were sent: one that is no id, that
//! nothing has, or that belongs to another organization is the same [`crate::error::Error::NotFound`].

pub mod account;
pub mod audit;
pub mod clusters;
pub mod deletion;
mod etag;
mod find;
pub mod join_tokens;
pub mod kubeconfigs;
pub mod local_machines;
pub mod me;
pub mod nodes;
pub mod operations;
pub mod organizations;
pub mod pools;
pub mod projects;
pub mod quotas;
pub mod sessions;
pub mod setup;
pub mod tokens;
pub mod versions;
pub mod view;
