//! REST v1 in process, on a real SQLite store: who may call what, what refusals look like, and the flows of a first day.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod account;
mod audit;
mod first_pools;
mod flows;
mod keys;
mod limits;
mod local_machines;
mod openapi;
mod quotas;
mod refusals;
mod sessions;
mod tenancy;
mod trying;
mod waiting;
mod world;
