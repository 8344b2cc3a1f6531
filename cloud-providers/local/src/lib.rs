//! Machine containers: a machine in milliseconds, for trying out and for tests.
//!
//! Each has namespaces of its own, an overlay over one shared Debian tree, a wire to a bridge behind NAT, and the node agent
//! as PID 1, which enrolls by the very token and path that any machine uses. Two stages build it: [`stage::run`] makes the
//! process namespace and the wire, [`stage::init`] the rest, and then becomes the agent. A machine is found again by its
//! cgroup and its directory, so it outlives the platform's process.
//!
//! With ranges of ids ([`Ranges`]) each also has a user namespace: root inside is nobody outside, and reaches nothing of the platform's
//! machine but the gateway and its resolvers. Without, it is not a security boundary: root inside is root outside.

mod cgroup;
mod confine;
mod crash_loop;
mod error;
mod kernel;
mod machine;
mod network;
mod provider;
pub mod stage;
mod users;

pub use error::LocalError;
pub use machine::resolver_addresses;
pub use network::{AppliedRules, Network};
pub use provider::{Local, LocalConfig};
pub use users::Ranges;
