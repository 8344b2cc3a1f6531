//! The node agent: joins a machine to its cluster and keeps it there.
//!
//! Two ways in, one machine room. **Joined**: a token becomes certificates ([`enroll`]), the platform says what the node should be
//! over the link ([`link`]), parts come by checksum ([`fetch`]). **Static**: a file says all of it ([`static_node`]); the embedded
//! host's own node is made this way. Both end in one [`spec::NodeSpec`], which [`runtime`] turns into running processes
//! ([`containerd`], [`kubelet`], [`kube_proxy`], kept by [`supervise`]).
//!
//! Towards the cluster the agent offers the reverse [`tunnel`] and answers the in-cluster API address ([`api_proxy`]).
//! Everything it puts on the machine is in the [`ledger`], and [`reset`] removes exactly that.

pub mod agent;
pub mod api_proxy;
pub mod arrivals;
pub mod child;
pub mod cni;
pub mod config;
pub mod connect;
pub mod containerd;
pub mod enroll;
pub mod fetch;
pub mod guard;
pub mod halt;
pub mod images;
pub mod init;
pub mod kube_proxy;
pub mod kubelet;
pub mod labels;
pub mod ledger;
pub mod link;
pub mod machine;
pub mod network;
mod partial;
pub mod pki;
pub mod preflight;
mod proxy;
pub mod reset;
pub mod runtime;
pub mod service;
pub mod signature;
pub mod spec;
pub mod static_node;
pub mod status;
pub mod supervise;
pub mod tunnel;
