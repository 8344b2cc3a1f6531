//! The domain: what a tenant control plane looks like, touching nothing.
//!
//! Everything here is a pure function of its arguments. There is no async, no IO, no clock and no randomness: the time is an argument
//! (`now`) and key pairs come from a [`pki::KeySource`]. So what a cluster should look like can be said, tested and compared anywhere.
//!
//! The way through: text becomes a [`spec::ClusterSpec`] once, at the edge; [`pki::ClusterPki`] holds a cluster's certificates;
//! [`render::render`] turns both into Kubernetes objects for the host; [`addon`] into objects for inside the tenant;
//! [`observation`] reads facts off Kubernetes objects, and [`plan`] turns what was observed into actions and a report for people;
//! [`status::ProblemCode`] is the catalog of everything that can be wrong.

pub mod addon;
pub mod component;
pub mod diagnosis;
pub mod id;
pub mod isolation;
pub mod kubeconfig;
pub mod name;
pub mod node;
pub mod observation;
pub mod pki;
pub mod plan;
pub mod render;
pub mod sni;
pub mod spec;
pub mod standby;
pub mod status;
pub mod text;
pub mod version;
