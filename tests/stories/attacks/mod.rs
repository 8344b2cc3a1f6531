//! Attacks on a running platform, each bounded in time: what an unauthenticated client, a tenant, a node or the holder of a lesser credential
//! may try, and what it must not get. `docs/security.md` names the promise that each of them keeps.

mod gateway;
mod kubeconfigs;
mod local_machines;
mod nodes;
mod people;
mod portal;
mod process;
mod tenants;
