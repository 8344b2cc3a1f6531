//! From what was observed to what is next and what to tell people: pure, and never taking ignorance for absence.
//!
//! In what was observed, `None` is "could not tell". Nothing is made, removed or called broken on a `None`.

pub mod cluster;
pub mod node;
pub mod pool;
mod steps;

pub use steps::{CLUSTER_CREATE, CLUSTER_DELETE, NODE_DELETE, POOL_CREATE, POOL_DELETE, Progress, StepInfo, steps};
